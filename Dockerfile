# The server alone; MongoDB runs beside it (docker-compose.yml).
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# What a backtrace needs stays, and what only a debugger needs goes.
RUN cargo build --release --locked --bin corriente \
    && strip --strip-debug -o /corriente target/release/corriente

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home corriente
COPY --from=build /corriente /usr/local/bin/corriente
USER 10001
ENV HOST=0.0.0.0 PORT=3000
EXPOSE 3000
# By bash, which is there, so that the image needs no HTTP client. `/readyz` says 200 while messages come through.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["corriente"]
