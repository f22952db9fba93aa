//! Sessions of Engine.IO as they were let in, which the library knows nothing of.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::command::Command;
use crate::{listener::Guest, sessions::Client, telemetry::Counted};

/// Goes with the request that begins a session, and so with the session, which keeps the request's parts.
pub(super) struct Admission {
    /// Where the commands of its client come, until its session takes them up.
    pub(super) commands: Mutex<Option<mpsc::Receiver<Command>>>,
    /// Who began it.
    pub(super) client: Client,
    /// Cancelled when the session's WebSocket is to be closed.
    pub(super) leave: CancellationToken,
    /// The session's id, when it is known, and where it stands by that.
    listed: OnceLock<(String, OpenSessions)>,
    _place: OwnedSemaphorePermit,
    /// Of its client: a session that polls has no connection that counts as long as it lasts, and one that began with a
    /// connection is kept for a while when that is gone before it was joined.
    _guest: Option<Arc<Guest>>,
    _counted: Counted,
}

impl Admission {
    pub(super) fn new(
        client: Client,
        place: OwnedSemaphorePermit,
        guest: Option<Arc<Guest>>,
        counted: Counted,
    ) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::default(),
            client,
            leave: CancellationToken::new(),
            listed: OnceLock::new(),
            _place: place,
            _guest: guest,
            _counted: counted,
        })
    }

    /// The session's id; empty as long as it is not known.
    pub(super) fn sid(&self) -> &str {
        self.listed.get().map_or("", |(sid, _)| sid)
    }
}

/// Sessions by their ids, as long as they last. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct OpenSessions(Arc<Mutex<HashMap<String, Weak<Admission>>>>);

impl OpenSessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Weak<Admission>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, sid: &str, admission: &Arc<Admission>) {
        self.all().insert(sid.to_owned(), Arc::downgrade(admission));
        // A session is opened once.
        let _ = admission.listed.set((sid.to_owned(), self.clone()));
    }

    /// The session that a query names.
    pub(super) fn named_in(&self, query: &str) -> Option<Arc<Admission>> {
        let sid = query.split('&').find_map(|pair| pair.strip_prefix("sid="))?;
        self.all().get(sid)?.upgrade()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((sid, sessions)) = self.listed.get() {
            sessions.all().remove(sid);
        }
    }
}
