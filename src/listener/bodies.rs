//! What the bodies of all requests take in memory, together.
//!
//! A body is small, but there are as many as there are requests, and a client that sends slowly holds its own for long. So
//! they share one room, and each waits for its part as it comes, while its deadline goes on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::StreamExt;
use hyper::body::{Body as HyperBody, Frame, SizeHint};
use poem::{Body, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guests::Guest;

/// The room. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    bytes_max: u32,
}

/// A part of the room, as long as it lives.
pub(super) struct Part(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

impl Bodies {
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(bytes_max as usize)), bytes_max }
    }

    /// Lets the body of a request come in as there is room for it. What it takes is kept until what is returned is dropped.
    pub(super) fn bound(&self, request: &mut Request) -> Arc<Mutex<Part>> {
        let taken = Arc::new(Mutex::new(Part(None)));
        let (bodies, part) = (self.clone(), taken.clone());
        let chunks = request.take_body().into_bytes_stream().then(move |chunk| {
            let (bodies, part) = (bodies.clone(), part.clone());
            async move {
                let chunk = chunk?;
                let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX).min(bodies.bytes_max);
                // Nobody closes the semaphore.
                let more = bodies.room.acquire_many_owned(bytes).await.map_err(std::io::Error::other)?;
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

    #[tokio::test]
    async fn a_body_waits_for_room_and_gives_it_back_with_its_request() {
        let bodies = Bodies::new(1_000);
        let mut first = request(900);
        let held = bodies.bound(&mut first);
        assert_eq!(first.take_body().into_bytes().await.unwrap().len(), 900);
        let mut second = request(200);
        let _held = bodies.bound(&mut second);
        let mut reading = Box::pin(second.take_body().into_bytes());
        assert!(timeout(Duration::from_millis(20), &mut reading).await.is_err(), "there is room for 100 only");
        drop(held);
        assert_eq!(reading.await.unwrap().len(), 200);
    }
}
