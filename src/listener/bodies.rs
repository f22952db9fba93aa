//! What the bodies of all requests take in memory, together.
//!
//! A body is small, but there are as many as there are requests, and a client that sends slowly holds its own for long. So
//! they share one room, and each waits for its part as it comes, while its deadline goes on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use super::{
    guests::Guest,
    network::ClientNetwork,
    room::{Room, Taken},
};
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::{Body as HyperBody, Frame, SizeHint};
use poem::{Body, Request};

/// What the largest body of all takes, in bytes: as much is for each network however small the room is, or such a body
/// would wait in vain.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Bodies whose told length is at most this, in bytes, are not counted: a connection reads as much ahead in any case.
const SMALL_BYTES_MAX: u64 = 4 * 1024;

/// Whether a body is bounded by the room for all.
pub(super) fn is_counted(body: &impl HyperBody) -> bool {
    // One of unknown length may be of any.
    body.size_hint().upper().is_none_or(|bytes| bytes > SMALL_BYTES_MAX)
}

/// The room, in bytes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies(Room);

/// A part of the room, as long as it lives.
pub(super) struct Part(Option<Taken>);

impl Bodies {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Room::new(bytes_max, BODY_BYTES_MAX))
    }

    /// Lets the body of a request come in as there is room for it. What it takes is kept until what is returned is dropped.
    pub(super) fn bound(&self, request: &mut Request, network: ClientNetwork) -> Arc<Mutex<Part>> {
        let taken = Arc::new(Mutex::new(Part(None)));
        let (tenant, part) = (self.0.enter(network), taken.clone());
        let chunks = request.take_body().into_bytes_stream().then(move |chunk| {
            let (tenant, part) = (tenant.clone(), part.clone());
            async move {
                let chunk = chunk?;
                let more = tenant.take(chunk.len()).await.ok_or(std::io::ErrorKind::BrokenPipe)?;
                let Part(part) = &mut *part.lock().unwrap_or_else(PoisonError::into_inner);
                match part {
                    Some(part) => part.merge(more),
                    None => *part = Some(more),
                }
                Ok::<_, std::io::Error>(chunk)
            }
        });
        request.set_body(Body::from_bytes_stream(chunks));
        taken
    }
}

/// The body of an answer, and what its client holds as long as it lasts.
pub(super) struct Held<B> {
    pub(super) body: B,
    pub(super) _guest: Option<Arc<Guest>>,
}

impl<B: HyperBody<Data = Bytes> + Unpin> HyperBody for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn request(bytes: usize) -> Request {
        Request::builder().body(vec![b'x'; bytes])
    }

    fn network(text: &str) -> ClientNetwork {
        ClientNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn only_a_body_that_is_told_to_be_small_is_not_counted() {
        let body = |bytes: usize| -> http_body_util::Full<Bytes> { vec![b'x'; bytes].into() };
        assert!([0, 1, 4_096].iter().all(|bytes| !is_counted(&body(*bytes))));
        assert!(is_counted(&body(4_097)));
        let unknown = Body::from_bytes_stream(futures::stream::iter([Ok::<_, std::io::Error>(Bytes::new())]));
        let unknown: http_body_util::combinators::BoxBody<Bytes, std::io::Error> = unknown.into();
        assert!(is_counted(&unknown));
    }

    #[tokio::test]
    async fn bodies_of_one_network_wait_for_each_other_and_nobody_else_for_them() {
        let bodies = Bodies::new(4 * BODY_BYTES_MAX);
        let mut first = request(BODY_BYTES_MAX - 100);
        let _held = bodies.bound(&mut first, network("192.0.2.1"));
        assert!(first.take_body().into_bytes().await.is_ok());
        let (mut second, mut other) = (request(200), request(200));
        let _second = bodies.bound(&mut second, network("192.0.2.1"));
        assert!(timeout(Duration::from_millis(20), second.take_body().into_bytes()).await.is_err());
        let _other = bodies.bound(&mut other, network("192.0.2.2"));
        assert_eq!(other.take_body().into_bytes().await.unwrap().len(), 200);
    }

    #[tokio::test]
    async fn a_body_waits_for_room_and_gives_it_back_with_its_request() {
        let bodies = Bodies::new(1_000);
        let mut first = request(900);
        let held = bodies.bound(&mut first, network("192.0.2.1"));
        assert_eq!(first.take_body().into_bytes().await.unwrap().len(), 900);
        let mut second = request(200);
        let _held = bodies.bound(&mut second, network("192.0.2.2"));
        let mut reading = Box::pin(second.take_body().into_bytes());
        assert!(timeout(Duration::from_millis(20), &mut reading).await.is_err(), "there is room for 100 only");
        drop(held);
        assert_eq!(reading.await.unwrap().len(), 200);
    }
}
