//! Answers on their way to clients: what of them is in memory has a bound for all together, and one for each network.
//!
//! An answer is made whole and then taken by its client, which may do that as slowly as it likes. So the bytes of all that
//! are not taken yet are counted, but for small ones, which are no more than a connection itself. Streams are not: they are
//! made piece by piece, as their clients take them.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use hyper::body::Body as HyperBody;
use poem::{
    Body, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use tokio::time::Instant;

use super::{
    network::ClientNetwork,
    room::{Room, Taken, Tenant},
};

/// Answers up to so many bytes are not counted.
const SMALL_BYTES_MAX: u64 = 16 * 1024;
/// How much is handed to hyper at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// The room for answers, in pieces. Cheap to clone.
#[derive(Clone)]
pub(super) struct Answers(Room);

impl Answers {
    /// Room for so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Room::new(bytes_max.div_ceil(PIECE_BYTES), 1))
    }
}

/// Goes with a request: the way that its answer must be sent, before it is counted.
#[derive(Clone)]
pub struct Way {
    pub(super) answers: Answers,
    pub(super) network: ClientNetwork,
    pub(super) untaken: Untaken,
}

impl Way {
    /// Takes it from a request; `None` when that has not come through the front door.
    pub fn of(request: &mut Request) -> Option<Self> {
        request.extensions_mut().remove::<Self>()
    }

    /// The same answer, whose parts hold their room until they are taken; or a refusal, when there is none. It does not
    /// wait for room: an answer that waits is in memory too, and nothing would bound how many do.
    pub async fn send(self, mut response: Response) -> Response {
        let body: BoxBody<Bytes, io::Error> = response.take_body().into();
        let Some(size) = body.size_hint().exact().filter(|size| *size > SMALL_BYTES_MAX) else {
            response.set_body(Body::from(body));
            return response;
        };
        let tenant: Arc<Tenant> = self.answers.0.enter(self.network);
        let Some(room) = tenant.try_take((size as usize).div_ceil(PIECE_BYTES)) else {
            return refusal(response);
        };
        let Ok(bytes) = Body::from(body).into_bytes().await else {
            return refusal(response);
        };
        // Copies: a slice would keep the whole as long as the last of it is not taken.
        let pieces: VecDeque<Bytes> = bytes.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
        let rest = Arc::new(Mutex::new(Rest { pieces: Some((pieces, room)), moved_at: Instant::now() }));
        self.untaken.add(&rest);
        let pieces = stream::poll_fn(move |_| Poll::Ready(lock(&rest).take().transpose()));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        response.set_body(Body::from_bytes_stream(pieces));
        response
    }
}

/// The rest of an answer.
struct Rest {
    /// `None` when it was given up.
    pieces: Option<(VecDeque<Bytes>, Taken)>,
    moved_at: Instant,
}

impl Rest {
    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some((pieces, room)) = &mut self.pieces else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let piece = pieces.pop_front();
        if piece.is_some() {
            self.moved_at = Instant::now();
            room.give_back_one();
        }
        Ok(piece)
    }
}

fn lock(rest: &Mutex<Rest>) -> std::sync::MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers of one connection that are not taken whole. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Untaken(Arc<Mutex<Vec<Weak<Mutex<Rest>>>>>);

impl Untaken {
    fn add(&self, rest: &Arc<Mutex<Rest>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|rest| rest.strong_count() > 0);
        all.push(Arc::downgrade(rest));
    }

    /// Gives up those of which no piece was taken for so long, and says whether there were any. A client can keep its
    /// connection alive in other ways, so that is not enough to keep them.
    pub(super) fn give_up_stuck(&self, silence_max: Duration) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_any = false;
        for rest in all.iter().filter_map(Weak::upgrade) {
            let mut rest = lock(&rest);
            let is_left = rest.pieces.as_ref().is_some_and(|(pieces, _)| !pieces.is_empty());
            if is_left && rest.moved_at.elapsed() >= silence_max {
                rest.pieces = None;
                is_any = true;
            }
        }
        is_any
    }
}

/// Instead of an answer, but counted by its route.
fn refusal(mut refused: Response) -> Response {
    const PROBLEM: &str = r#"{"type":"/problems/unavailable","title":"The server is busy","status":503,"detail":"too many answers are on their way to clients that take them slowly; try again in a moment"}"#;
    let mut refusal = Response::builder()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .content_type("application/problem+json")
        .header(header::RETRY_AFTER, "5")
        .body(PROBLEM);
    std::mem::swap(refusal.extensions_mut(), refused.extensions_mut());
    refusal
}
