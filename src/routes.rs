//! The whole URL table on one screen.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Request, Response, Route,
    endpoint::{make, make_sync},
    get,
    http::StatusCode,
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    api::{self, Api},
    asyncapi,
    middleware::Middleware,
    origin::Origins,
    pages::{self, Pages, Stored},
    problem::Problem,
    rates::Rates,
    readiness::Readiness,
    sessions::{LiveApi, Sessions, serve_socket_io, serve_websocket},
    telemetry::Metrics,
    vitals::Vitals,
};

/// The largest body of a request to the API, in bytes: a content of 4,000 characters fits in any encoding. The forms of
/// the pages have a bound of their own, and an answer in HTML.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What holds for requests of every kind.
pub struct RequestLimits {
    /// Which web pages may use the server.
    pub origins: Origins,
    /// How much one client may ask for.
    pub rates: Rates,
    /// How long the body of a request to the API may take to come.
    pub body_time_max: Duration,
}

/// What is for whoever watches over the server.
pub struct Operators {
    /// Whether it is of use.
    pub readiness: Readiness,
    /// How it is.
    pub vitals: Vitals,
    /// Where requests are counted.
    pub metrics: Metrics,
}

/// Everything that the server offers.
///
/// With a base path everything is below it, and what operators ask a server by itself is at the root too.
pub fn routes(
    api: Api,
    pages: Pages,
    sessions: Sessions,
    operators: Operators,
    limits: RequestLimits,
) -> impl Endpoint<Output = Response> + 'static {
    let bound_body = move |request| bound_body(request, limits.body_time_max);
    let sessions = Arc::new(sessions);
    let base = pages.base.clone();
    let service = api::service(&api, LiveApi(sessions.clone()));
    let socket_io = serve_socket_io(&sessions);
    let (json, yaml) = (service.spec_endpoint(), service.spec_endpoint_yaml());
    // The framework's own endpoint copies its megabyte and a half for each request, and does not pack it.
    // Packing takes a tenth of a second, which the start of a server need not wait for.
    let html = service.swagger_ui_html();
    let below_docs = base.clone();
    let docs = Arc::new(Docs::new(Box::new(move || pages::rest_page(&below_docs, &html))));
    let docs_page = || {
        let docs = docs.clone();
        get(make(move |request| show_docs(docs.clone(), request)))
    };
    let asyncapi = Bytes::from(asyncapi::document(&serde_json::from_str(&service.spec()).unwrap_or_default(), &base));
    // Each is given what it works with, and no other request pays for that.
    let room = get(pages::show_room).post(pages::post_room).data(pages.clone());
    let inbox = get(pages::show_inbox).post(pages::post_inbox).data(pages.clone());
    let status = get(pages::show_status).data(operators.vitals.clone()).data(pages.clone());
    let all = Route::new()
        // People
        .at("/", get(pages::index).data(pages.clone()))
        .at("/rooms/:room", room.around(pages::compress_page))
        .at("/rooms.json", get(pages::list_rooms).data(pages.clone()))
        .at("/inbox/:user", inbox.around(pages::compress_page))
        .at("/static/:file", get(pages::static_file))
        .at("/client.js", get(pages::client_script))
        .at("/favicon.ico", get(pages::favicon))
        // Programs
        .nest_no_strip("/api", service.into_endpoint().before(bound_body))
        .at("/ws", get(serve_websocket).data(sessions))
        .nest_no_strip("/socket.io", socket_io)
        .at("/docs", docs_page())
        .at("/docs/", docs_page())
        .at("/docs/realtime", get(pages::show_realtime).data(pages.clone()).around(pages::compress_page))
        .at("/problems/:name", get(pages::show_problem).data(pages.clone()))
        .at("/openapi.json", get(json))
        .at("/openapi.yaml", get(yaml))
        .at("/asyncapi.yaml", get(make_sync(move |_| asyncapi.clone().with_content_type("application/yaml"))))
        // Operators
        .at("/livez", get(api::livez))
        .at("/readyz", get(api::readyz).data(operators.readiness.clone()))
        .at("/metrics", get(api::metrics).data(operators.vitals.clone()))
        .at("/status", status.around(pages::compress_page));
    let all = match base.as_str() {
        "" => all,
        base => Route::new()
            .nest(base, all)
            .at("/livez", get(api::livez))
            .at("/readyz", get(api::readyz).data(operators.readiness))
            .at("/metrics", get(api::metrics).data(operators.vitals)),
    };
    Middleware::new(all, limits.origins, limits.rates, pages, operators.metrics)
}

/// The page of Swagger UI, packed.
type Docs = LazyLock<Stored, Box<dyn FnOnce() -> Stored + Send>>;

/// Packs the page when it is first asked for, where nobody else waits for that.
async fn show_docs(docs: Arc<Docs>, request: Request) -> Response {
    let packed = spawn_blocking(move || docs.page(request.headers())).await;
    packed.unwrap_or_else(|_| Problem::of_server().into_response())
}

/// Reads the body as far as it may go, whether or not its length was told before.
async fn bound_body(mut request: Request, time_max: Duration) -> poem::Result<Request> {
    let body = timeout(time_max, request.take_body().into_bytes_limit(BODY_BYTES_MAX)).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    request.set_body(body);
    Ok(request)
}
