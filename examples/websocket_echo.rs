//! A WebSocket that sends back what it gets, over the same handshake and frames as the server's: for suites that test
//! conformance with RFC 6455. `HOST` (127.0.0.1) and `PORT` (9001; 0 = any free one) say where.

use std::{env, time::Duration};

use corriente::{
    listener::{ClientStream, DoorLimits, FrontDoor, SenderHeader},
    problem::Problem,
    sessions::{Incoming, Outgoing, ReadError, Socket, WriteError, accept},
    telemetry::Metrics,
};
use poem::{EndpointExt, Request, Response, Route, get, handler};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a peer may take no byte.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let address = format!("{}:{}", setting("HOST", "127.0.0.1"), setting("PORT", "9001"));
    let listener = TcpListener::bind(address).await?;
    println!("listening on ws://{}", listener.local_addr()?);
    run(listener).await;
    Ok(())
}

/// Serves for ever.
pub async fn run(listener: TcpListener) {
    let limits = DoorLimits {
        connections_max: 1_000,
        connections_per_address_max: 1_000,
        header_time_max: SILENCE_MAX,
        silence_max: SILENCE_MAX,
        answers_bytes_max: 1 << 28,
        trusted_proxies: [].into(),
        sender_header: SenderHeader::default(),
        bodies_bytes_max: 64 * 1024 * 1024,
    };
    let routes = Route::new().at("/*any", get(serve)).at("/", get(serve)).map_to_response();
    FrontDoor::new(listener, limits, &Metrics::default()).serve(routes, CancellationToken::new(), SILENCE_MAX).await;
}

#[handler]
fn serve(request: &Request) -> Result<Response, Problem> {
    let (upgrade, answer) = accept(request)?;
    tokio::spawn(async move {
        if let Some(stream) = upgrade.stream(SILENCE_MAX).await {
            // A peer that is gone has nobody to be told of it.
            let _ = echo(Socket::new(stream)).await;
        }
    });
    Ok(answer)
}

async fn echo(mut socket: Socket<ClientStream>) -> Result<(), WriteError> {
    let goodbye = loop {
        let answer = match socket.read().await {
            Ok(Incoming::Text(text)) => Outgoing::Text(text.as_bytes()).encode(),
            Ok(Incoming::Binary(data)) => Outgoing::Binary(&data).encode(),
            Ok(Incoming::Ping(payload)) => Outgoing::Pong(&payload).encode(),
            Ok(Incoming::Pong | Incoming::Fragments(_)) => continue,
            Ok(Incoming::Close(code)) => break Outgoing::close_echo(code).encode(),
            Err(ReadError::Violation(violation)) => break violation.close_frame(),
            Err(ReadError::Gone) => return Ok(()),
        };
        socket.write(answer, SILENCE_MAX).await?;
    };
    socket.write(goodbye, SILENCE_MAX).await?;
    socket.part().await;
    Ok(())
}
