//! Answers on their way to clients: what of them is in memory has a bound for all together.
//!
//! An answer is made whole and then taken by its client, which may do that as slowly as it likes. So the bytes of all that
//! are not taken yet are counted, but for small ones, which are no more than a connection itself. Streams are not: they are
//! made piece by piece, as their clients take them.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use hyper::body::Body as HyperBody;
use poem::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use tokio::sync::Semaphore;

/// Answers up to so many bytes are not counted.
const SMALL_BYTES_MAX: u64 = 16 * 1024;
/// How much is handed to hyper at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// The room for answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    /// One for each [`PIECE_BYTES`].
    room: Arc<Semaphore>,
    pieces_max: usize,
}

impl Answers {
    /// Room for so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let pieces_max = bytes_max.div_ceil(PIECE_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(pieces_max)), pieces_max }
    }

    /// The same answer, whose parts hold their room until they are taken; or a refusal, when there is none. It does not
    /// wait for room: an answer that waits is in memory too, and nothing would bound how many do.
    pub(super) async fn send(&self, mut response: Response) -> Response {
        let body: BoxBody<Bytes, io::Error> = response.take_body().into();
        let Some(size) = body.size_hint().exact().filter(|size| *size > SMALL_BYTES_MAX) else {
            response.set_body(Body::from(body));
            return response;
        };
        let pieces = (size as usize).div_ceil(PIECE_BYTES).min(self.pieces_max);
        let Ok(mut room) = self.room.clone().try_acquire_many_owned(u32::try_from(pieces).unwrap_or(u32::MAX)) else {
            return refusal();
        };
        let Ok(bytes) = Body::from(body).into_bytes().await else {
            return refusal();
        };
        // Copies: a slice would keep the whole as long as the last of it is not taken.
        let pieces: Vec<Bytes> = bytes.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
        let pieces = pieces.into_iter().map(move |piece| {
            drop(room.split(1));
            Ok::<_, io::Error>(piece)
        });
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        response.set_body(Body::from_bytes_stream(stream::iter(pieces)));
        response
    }
}

fn refusal() -> Response {
    const PROBLEM: &str = r#"{"type":"/problems/unavailable","title":"The server is busy","status":503,"detail":"too many answers are on their way to clients that take them slowly; try again in a moment"}"#;
    Response::builder()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .content_type("application/problem+json")
        .header(header::RETRY_AFTER, "5")
        .body(PROBLEM)
}
