//! What holds for every request, whatever it asks for: it has an id in the log and in its answer, pages of other sites are
//! refused, no client may ask for too much, what no handler answers is answered all the same, an answer that is not taken is
//! bounded, and all of it is counted.
//!
//! This is one layer and not one for each of these. A request and the future of its answer are moved through every layer,
//! which cost more than what the layers do.

mod request_id;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use poem::{
    Endpoint, IntoResponse, PathPattern, Request, Response, Result,
    error::NotFoundError,
    http::{HeaderValue, Method, StatusCode, header},
};
use tokio::sync::SemaphorePermit;
use tracing::{Instrument, debug, info_span};

use crate::{
    base_path::BasePath,
    listener::{ClientNetwork, Way},
    origin::Origins,
    pages::{self, Pages},
    problem::Problem,
    rates::Rates,
    telemetry::Metrics,
};
use request_id::RequestId;

/// What operators ask is never refused, and neither is what costs next to nothing: these, and a file below `/static/`.
/// Nothing else that begins like them: a page that says that there is no such address costs as much as any.
const OPERATORS: [&str; 3] = ["/livez", "/readyz", "/metrics"];
const FILES: [&str; 2] = ["/client.js", "/favicon.ico"];

/// What asks MongoDB, and does not wait for anything else. (`/api/messages` by itself may wait for the stream, and takes
/// its turn after that.)
const READS: [&str; 4] = ["/api/messages/", "/api/rooms", "/rooms", "/inbox/"];

/// Below which addresses there are such that take a POST.
const WRITTEN_TO: [&str; 3] = ["/rooms/", "/inbox/", "/socket.io"];

/// The layer around the routes `E`.
pub struct Middleware<E> {
    routes: E,
    origins: Origins,
    rates: Rates,
    pages: Pages,
    docs: Arc<str>,
    metrics: Metrics,
}

impl<E: Endpoint<Output = Response>> Middleware<E> {
    /// Around `routes`, which know of the base path that `pages` have.
    pub fn new(routes: E, origins: Origins, rates: Rates, pages: Pages, metrics: Metrics) -> Self {
        // The first look at the metrics finds the one for itself.
        metrics.count_request("/metrics".into(), "GET", 200, Duration::ZERO);
        let docs = pages.base.join("/docs").into();
        Self { routes, origins, rates, pages, docs, metrics }
    }

    fn base(&self) -> &BasePath {
        &self.pages.base
    }

    async fn answer(&self, mut request: Request) -> Response {
        let way = Way::of(&mut request);
        let path = request.uri().path();
        let origin = match self.origins.judge(&request, self.base().below(path).unwrap_or(path)) {
            Ok(origin) => origin,
            Err(forbidden) => return forbidden.into_response(),
        };
        let mut response = match origin.preflight(request.method()) {
            Some(permission) => permission,
            None => self.answer_in_turn(request).await,
        };
        if let Some(way) = way {
            response = way.send(response).await;
        }
        // Errors too: a page that is allowed may know why it failed.
        origin.tell(response.headers_mut());
        response
    }

    async fn answer_in_turn(&self, request: Request) -> Response {
        let path = self.base().below(request.uri().path()).unwrap_or_default();
        let is_written_to = path == "/api/messages" || WRITTEN_TO.iter().any(|place| path.starts_with(place));
        let _turn = match self.turn(&request).await {
            Ok(turn) => turn,
            Err(refusal) => return refusal,
        };
        let asked = asks_for_html(&request).then(|| self.head_of(&request));
        let mut response = match AssertUnwindSafe(self.routes.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => self.answer_error(error, asked).await,
            // Its words are in the log.
            Err(_panic) => Problem::of_server().into_response(),
        };
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // As RFC 9110, 15.5.6, wants it.
            let methods = if is_written_to { "GET, HEAD, POST" } else { "GET, HEAD" };
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// Counts a request and, where it reads from MongoDB, waits until that may be asked for its client. Refuses what
    /// is too much: with a page for browsers, which ask for HTML, and a problem for everybody else.
    async fn turn(&self, request: &Request) -> Result<Option<SemaphorePermit<'_>>, Response> {
        let path = request.uri().path();
        // Operators ask a server by itself, too.
        let is_operators = OPERATORS.contains(&path);
        let path = self.base().below(path).unwrap_or_default();
        if is_operators || OPERATORS.contains(&path) || FILES.contains(&path) || pages::is_static(path) {
            return Ok(None);
        }
        let from = ClientNetwork::of_request(request);
        // A HEAD is answered by what answers a GET.
        let is_get = *request.method() == Method::GET || *request.method() == Method::HEAD;
        let is_read = is_get && READS.iter().any(|read| path.starts_with(read));
        let turn = match self.rates.request(from) {
            Ok(()) if is_read => self.rates.turn(from).await,
            counted => counted.map(|()| None),
        };
        turn.map_err(|too_many| match asks_for_html(request) {
            true => pages::too_many(request, self.base().clone(), too_many.retry_after_secs),
            false => Problem::from(too_many).into_response(),
        })
    }

    /// What of a request is needed to say that there is no such page, when it is gone.
    fn head_of(&self, request: &Request) -> Request {
        let mut head = Request::builder().uri(request.uri().clone()).finish();
        *head.headers_mut() = request.headers().clone();
        head.set_data(self.pages.clone());
        head
    }

    /// Errors that no handler has turned into an answer: wrong methods, bodies that can not be read, and unknown addresses,
    /// which are a page for browsers, which ask for HTML. (A route `/*rest` would also take `/`.)
    async fn answer_error(&self, error: poem::Error, asked: Option<Request>) -> Response {
        if let Some(asked) = asked.filter(|_| error.is::<NotFoundError>()) {
            return pages::not_found.get_response(asked).await;
        }
        if error.is_from_response() {
            return error.into_response();
        }
        let mut response = Problem::of_error(&error, &self.docs).into_response();
        if let Some(pattern) = error.data::<PathPattern>() {
            // For whoever counts answers by route.
            response.set_data(pattern.clone());
        }
        response
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Middleware<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let began = Instant::now();
        let id = RequestId::of(request.headers());
        let method = word_of(request.method());
        // A path is ASCII without spaces and controls, so it can not forge a line. The query stays out: it may hold what
        // people search for.
        let span = info_span!("request", %id, method, path = request.uri().path());
        let mut response = self.answer(request).instrument(span.clone()).await;
        let duration = began.elapsed();
        let status = response.status().as_u16();
        // The framework numbers the parameters of documented operations.
        let route = response.data::<PathPattern>().map_or("none".into(), |pattern| pattern.0.replace(":param0", ":id"));
        self.metrics.count_request(route, method, status, duration);
        debug!(parent: &span, status, millis = duration.as_secs_f64() * 1_000.0, "answered");
        id.tell(response.headers_mut());
        Ok(response)
    }
}

fn asks_for_html(request: &Request) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|types| types.to_str().ok());
    accepted.is_some_and(|types| types.contains("text/html"))
}

/// The method as a label: whatever clients make up is `other`.
fn word_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
