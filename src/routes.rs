//! The whole URL table on one screen.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, PathPattern, Request, Response, Route,
    endpoint::make_sync,
    error::NotFoundError,
    get,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::CatchPanic,
};
use tokio::time::timeout;

use crate::{
    api::{self, Api},
    asyncapi,
    base_path::BasePath,
    listener::{ClientNetwork, bound_answer},
    origin::Origins,
    pages::{self, Pages},
    problem::Problem,
    rates::Rates,
    readiness::Readiness,
    requests::Noted,
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
    let (below, elsewhere, rated) = (pages.clone(), pages.clone(), base.clone());
    let (rates, path) = (limits.rates.clone(), base.clone());
    let docs_below: Arc<str> = base.join("/docs").into();
    let docs_elsewhere = docs_below.clone();
    let service = api::service(&api, LiveApi(sessions.clone()));
    let socket_io = serve_socket_io(&sessions);
    let (json, yaml) = (service.spec_endpoint(), service.spec_endpoint_yaml());
    // The framework's own endpoint copies its megabyte and a half for each request, and does not pack it.
    // Packing takes a tenth of a second, which the start of a server need not wait for.
    let html = service.swagger_ui_html();
    let below_docs = base.clone();
    let docs = Arc::new(LazyLock::new(move || pages::rest_page(&below_docs, &html)));
    let show_docs = || {
        let docs = docs.clone();
        get(make_sync(move |request| docs.page(request.headers())))
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
        .at("/docs", show_docs())
        .at("/docs/", show_docs())
        .at("/docs/realtime", get(pages::show_realtime).data(pages.clone()).around(pages::compress_page))
        .at("/problems/:name", get(pages::show_problem).data(pages.clone()))
        .at("/openapi.json", get(json))
        .at("/openapi.yaml", get(yaml))
        .at("/asyncapi.yaml", get(make_sync(move |_| asyncapi.clone().with_content_type("application/yaml"))))
        // Operators
        .at("/livez", get(api::livez))
        .at("/readyz", get(api::readyz).data(operators.readiness.clone()))
        .at("/metrics", get(api::metrics).data(operators.vitals.clone()))
        .at("/status", status.around(pages::compress_page))
        .with(CatchPanic::new())
        .around(move |endpoint, request| answer_unknown(endpoint, request, below.clone()))
        .catch_all_error(move |error| answer_error(error, docs_below.clone()))
        .around(tell_methods)
        .around(move |endpoint, request| bound_rate(endpoint, request, limits.rates.clone(), rated.clone()))
        .around(bound_answer)
        .with(limits.origins);
    // Once, around everything: what is below a base path is one request too.
    let noted = Noted::new(operators.metrics);
    if base.as_str().is_empty() {
        return all.with(noted).boxed();
    }
    Route::new()
        .nest(base.as_str(), all)
        .at("/livez", get(api::livez))
        .at("/readyz", get(api::readyz).data(operators.readiness))
        .at("/metrics", get(api::metrics).data(operators.vitals))
        .around(move |endpoint, request| answer_unknown(endpoint, request, elsewhere.clone()))
        .catch_all_error(move |error| answer_error(error, docs_elsewhere.clone()))
        .around(move |endpoint, request| bound_elsewhere(endpoint, request, rates.clone(), path.clone()))
        .around(bound_answer)
        .with(noted)
        .boxed()
}

/// What costs next to nothing, and what operators ask, is never refused; and neither is a file below `/static/`. Nothing else
/// that begins like these: a page that says that there is no such address costs as much as any.
const UNBOUND: [&str; 5] = ["/livez", "/readyz", "/metrics", "/client.js", "/favicon.ico"];

/// What asks MongoDB, and does not wait for anything else. (`/api/messages` by itself may wait for the stream, and takes
/// its turn after that.)
const READS: [&str; 4] = ["/api/messages/", "/api/rooms", "/rooms", "/inbox/"];

/// Refuses what is too much for one client: with a page for browsers, which ask for HTML, and a problem for everybody else.
async fn bound_rate<E: Endpoint<Output = Response>>(
    endpoint: Arc<E>,
    request: Request,
    rates: Rates,
    base: BasePath,
) -> poem::Result<Response> {
    let path = request.uri().path();
    if UNBOUND.contains(&path) || pages::is_static(path) {
        return endpoint.call(request).await;
    }
    let from = ClientNetwork::of_request(&request);
    // A HEAD is answered by what answers a GET.
    let is_get = *request.method() == Method::GET || *request.method() == Method::HEAD;
    let is_read = is_get && READS.iter().any(|read| path.starts_with(read));
    let turn = match rates.request(from) {
        Ok(()) if is_read => rates.turn(from).await,
        counted => counted.map(|()| None),
    };
    match turn {
        Ok(_turn) => endpoint.call(request).await,
        Err(too_many) if asks_for_html(&request) => Ok(pages::too_many(&request, base, too_many.retry_after_secs)),
        Err(too_many) => Ok(Problem::from(too_many).into_response()),
    }
}

/// The same for what is not below the base path, where it is bound already.
async fn bound_elsewhere<E: Endpoint<Output = Response>>(
    endpoint: Arc<E>,
    request: Request,
    rates: Rates,
    base: BasePath,
) -> poem::Result<Response> {
    if base.is_above(request.uri().path()) {
        return endpoint.call(request).await;
    }
    bound_rate(endpoint, request, rates, base).await
}

fn asks_for_html(request: &Request) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|types| types.to_str().ok());
    accepted.is_some_and(|types| types.contains("text/html"))
}

/// Reads the body as far as it may go, whether or not its length was told before.
async fn bound_body(mut request: Request, time_max: Duration) -> poem::Result<Request> {
    let body = timeout(time_max, request.take_body().into_bytes_limit(BODY_BYTES_MAX)).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    request.set_body(body);
    Ok(request)
}

/// An unknown URL is a page for browsers, which ask for HTML, and the usual problem for everybody else. (A route
/// `/*rest` would also take `/`.)
async fn answer_unknown<E: Endpoint>(endpoint: Arc<E>, request: Request, pages: Pages) -> poem::Result<Response> {
    if !asks_for_html(&request) {
        return endpoint.call(request).await.map(IntoResponse::into_response);
    }
    let mut asked = Request::builder().uri(request.uri().clone()).finish();
    *asked.headers_mut() = request.headers().clone();
    asked.set_data(pages);
    match endpoint.call(request).await {
        Err(error) if error.is::<NotFoundError>() => pages::not_found.call(asked).await,
        answer => answer.map(IntoResponse::into_response),
    }
}

/// Errors that no handler has turned into an answer: unknown URLs, wrong methods, bodies that can not be read.
async fn answer_error(error: poem::Error, docs: Arc<str>) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let mut response = Problem::of_error(&error, &docs).into_response();
    if let Some(pattern) = error.data::<PathPattern>() {
        // For whoever counts answers by route.
        response.set_data(pattern.clone());
    }
    response
}

/// Says which methods an address has to who has used another one, as RFC 9110 wants it.
async fn tell_methods<E: Endpoint<Output = Response>>(endpoint: Arc<E>, request: Request) -> poem::Result<Response> {
    let is_written_to = {
        let path = request.uri().path();
        path == "/api/messages" || WRITTEN_TO.iter().any(|place| path.starts_with(place))
    };
    let mut response = endpoint.call(request).await?;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let methods = if is_written_to { "GET, HEAD, POST" } else { "GET, HEAD" };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    Ok(response)
}

/// Below which addresses there are such that take a POST.
const WRITTEN_TO: [&str; 3] = ["/rooms/", "/inbox/", "/socket.io"];
