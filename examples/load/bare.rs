//! MongoDB's own change stream, read by the bare driver in this process: what a server can not be faster than.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use futures::StreamExt;
use mongodb::{
    bson::{Document, RawDocumentBuf},
    change_stream::event::ChangeStreamEvent,
};
use tokio_util::sync::CancellationToken;

use super::{
    publishers::collection,
    stamp::{MARK, Nanos, Stamp, now},
    stats::{Delays, no_delays, record},
};

/// How long the stream may take to open, in seconds.
const OPEN_SECS_MAX: u64 = 30;

/// The stream, on a thread and with a client of its own.
pub struct BareStream {
    delays: Arc<Mutex<(Delays, (Nanos, Nanos))>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl BareStream {
    /// Opens it.
    pub fn open(uri: &str, database: &str) -> anyhow::Result<Self> {
        let delays = Arc::new(Mutex::new((no_delays(), (Nanos::MAX, Nanos::MAX))));
        let stop = CancellationToken::new();
        let (opened, is_open) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (uri, database, into, ending) = (uri.to_owned(), database.to_owned(), delays.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(ending.run_until_cancelled(async {
                let collection = match collection(&uri, &database).await {
                    Ok(collection) => collection.clone_with_type::<Document>(),
                    Err(error) => return drop(opened.send(Err(error))),
                };
                let mut stream = match collection.watch().await {
                    Ok(stream) => stream.with_type::<ChangeStreamEvent<RawDocumentBuf>>(),
                    Err(error) => return drop(opened.send(Err(error.into()))),
                };
                drop(opened.send(Ok(())));
                while let Some(Ok(event)) = stream.next().await {
                    see(&event, &into);
                }
            }));
        });
        let waited = is_open.recv_timeout(Duration::from_secs(OPEN_SECS_MAX));
        let stream = Self { delays, stop, thread: Some(thread) };
        waited.context("the bare change stream does not open in time")?.context("the bare change stream")?;
        Ok(stream)
    }

    /// Measures the messages that are meant to be sent within these times.
    pub fn measure(&self, from: Nanos, until: Nanos) {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).1 = (from, until);
    }

    /// Ends it.
    pub fn finish(self) -> Delays {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Drop for BareStream {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn see(event: &ChangeStreamEvent<RawDocumentBuf>, delays: &Mutex<(Delays, (Nanos, Nanos))>) {
    let time = now();
    let content = event.full_document.as_ref().and_then(|document| document.get_str("content").ok());
    let Some(stamp) =
        content.filter(|text| text.as_bytes().starts_with(MARK)).and_then(|text| Stamp::read(text.as_bytes()))
    else {
        return;
    };
    let (delays, window) = &mut *delays.lock().unwrap_or_else(PoisonError::into_inner);
    if (window.0..window.1).contains(&stamp.intended) {
        record(delays, time.saturating_sub(stamp.intended));
    }
}
