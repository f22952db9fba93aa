//! For whoever watches over the server: is it alive, is it of use, and numbers.

use poem::{IntoResponse, Response, handler, http::StatusCode, web::Data};
use serde_json::json;

use crate::{readiness::Readiness, vitals::Vitals, watcher::Liveness};

/// `GET /livez`: this process answers.
#[handler]
pub fn livez() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200 when MongoDB answers, the change stream moves and the server is not about to stop; else 503. Why, in
/// JSON.
#[handler]
pub async fn readyz(Data(readiness): Data<&Readiness>) -> Response {
    let found = readiness.look().await;
    let reasons = found.reasons();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let stream = match found.stream {
        Liveness::Live => "live".to_owned(),
        Liveness::CatchingUp => "catching up".to_owned(),
        Liveness::Stale(secs) => format!("stale for {secs} s"),
    };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "stream": stream,
        "mongodb": if found.mongodb.is_ok() { "answers" } else { "does not answer" },
        "draining": found.is_draining,
        "position": found.position,
    });
    poem::web::Json(body).with_status(code).into_response()
}

/// `GET /metrics`: OpenMetrics.
#[handler]
pub fn metrics(Data(vitals): Data<&Vitals>) -> Response {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    vitals.render_metrics().with_content_type(media_type).into_response()
}
