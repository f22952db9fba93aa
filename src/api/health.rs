//! For whoever watches over the server: is it alive, is it of use, and numbers.

use poem::{IntoResponse, Response, handler, http::StatusCode, web::Data};
use serde_json::json;

use crate::{
    telemetry::Metrics,
    watcher::{Liveness, WatcherStatus},
};

/// `GET /livez`: this process answers.
#[handler]
pub fn livez() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200 when the change stream moves, else 503; the reason in JSON.
#[handler]
pub fn readyz(status: Data<&WatcherStatus>) -> Response {
    let (code, state) = match status.liveness() {
        Liveness::Live => (StatusCode::OK, "live".to_owned()),
        Liveness::CatchingUp => (StatusCode::SERVICE_UNAVAILABLE, "catching up".to_owned()),
        Liveness::Stale(secs) => (StatusCode::SERVICE_UNAVAILABLE, format!("stale for {secs} s")),
    };
    let body = json!({ "ready": code.is_success(), "stream": state, "position": status.position() });
    poem::web::Json(body).with_status(code).into_response()
}

/// `GET /metrics`: OpenMetrics.
#[handler]
pub fn metrics(metrics: Data<&Metrics>) -> Response {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    metrics.render().with_content_type(media_type).into_response()
}
