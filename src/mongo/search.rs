//! Messages that contain words: a walk from the newest to the oldest over the same scans as pages.
//!
//! There is no text index: it would make every insert dearer, and fails on documents with a field `language` of their
//! own. MongoDB can not fold accents in a comparison of parts either, so that contents are compared here.
//!
//! Measured on 50,000 messages of 100 characters with accents: to look at 5,000 of them takes MongoDB 12 to 20 ms, in
//! eleven questions, and their folding 14 ms of ours (2.8 us each; 0.05 us when they are ASCII, 180 us when they are 4,000
//! characters with accents). All of them are ten requests.

use std::time::Duration;

use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    History, Page, ReadError, Scope,
    document::decode,
    place::{HistoryPlace, Way},
    scan::{More, PAGE_BYTES_MAX, Rows, shown_bytes},
};
use crate::{
    cursor::ClusterTime,
    message::{Message, SearchWords},
};

/// The most documents that one search looks at before it gives what it has, and a place to go on from.
const SEARCH_DOCUMENTS_MAX: usize = 5_000;
/// The longest that one search goes on, in milliseconds, unless it has not looked at a single document by then.
const SEARCH_MILLIS_MAX: u64 = 1_000;
/// How many searches go on at once; others wait for their turn. Each may use a processor and hold one reading.
pub(super) const SEARCHES_MAX: usize = 4;
/// How many documents are read at once: few at first, as the newest often have what is searched for, and then more.
const READING_DOCUMENTS_FIRST: usize = 200;
const READING_DOCUMENTS_MAX: usize = 500;
/// After how many milliseconds other tasks are given the processor. Not after so many bytes: there is a letter of three bytes
/// that folds into eighteen others.
const TURN_MILLIS: u64 = 1;

impl History {
    /// The newest messages of `scope` older than `before` that contain all of the words, at most `limit`, as
    /// [`Self::page`]. One call looks at a bounded number of documents: its page may be short, or empty, and older ones
    /// are found by going on from its `before`. Its `after` is always `None`.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn search(
        &self,
        scope: &Scope,
        words: &SearchWords,
        limit: usize,
        before: Option<&HistoryPlace>,
        at_least: ClusterTime,
    ) -> Result<Page, ReadError> {
        self.within_deadline(async {
            // Nobody closes the semaphore.
            let _turn = self.searches.acquire().await.map_err(|_| ReadError { reason: "no more searches".into() })?;
            let mut session = self.session_at(at_least).await?;
            let deadline = Instant::now() + Duration::from_millis(SEARCH_MILLIS_MAX);
            let mut search = Search { words, limit, found: Vec::new(), found_bytes: 0, examined: 0, deadline };
            let mut scan = self.scan(&mut session, scope, Way::Older);
            let mut place = before.cloned();
            let mut reading_max = READING_DOCUMENTS_FIRST;
            let before = loop {
                let documents_max = reading_max.min(SEARCH_DOCUMENTS_MAX - search.examined);
                let reading = scan.read(place.as_ref(), documents_max);
                let rows = if search.examined == 0 {
                    reading.await?
                } else if let Ok(Ok(rows)) = timeout_at(search.deadline, reading).await {
                    rows
                } else {
                    // What was looked through already is worth more than an error.
                    break place;
                };
                let looked_at = search.look_at(&rows).await;
                let met: Vec<HistoryPlace> = rows.places().drain(..looked_at).collect();
                let next = HistoryPlace::after(Way::Older, place.as_ref(), &met);
                let more = if looked_at < rows.rows.len() { More::Surely } else { rows.more };
                if more == More::No {
                    break None;
                }
                if search.is_over() {
                    break scan.way_on(next, more).await?;
                }
                place = next;
                reading_max = READING_DOCUMENTS_MAX;
                scan.time_max = Duration::from_millis(SEARCH_MILLIS_MAX);
            };
            let mut messages = search.found;
            messages.reverse();
            Ok(Page { messages, before, after: None })
        })
        .await
    }
}

struct Search<'a> {
    words: &'a SearchWords,
    limit: usize,
    /// Newest first.
    found: Vec<Message>,
    /// What they take of a page.
    found_bytes: usize,
    examined: usize,
    deadline: Instant,
}

impl Search<'_> {
    /// Looks at rows until enough is found or the time is over: at one at least. Returns how many were looked at.
    async fn look_at(&mut self, rows: &Rows) -> usize {
        let mut turn_began = Instant::now();
        for (n, row) in rows.rows.iter().enumerate() {
            self.examined += 1;
            // A document is checked against the contract only when it is wanted.
            let content = row.document.get_str("content").unwrap_or_default();
            if self.words.are_in(content)
                && let Ok(message) = decode(&row.document)
            {
                self.found_bytes += shown_bytes(&message.content);
                self.found.push(message);
            }
            if turn_began.elapsed() >= Duration::from_millis(TURN_MILLIS) {
                yield_now().await;
                turn_began = Instant::now();
            }
            if self.is_full() || turn_began >= self.deadline {
                return n + 1;
            }
        }
        rows.rows.len()
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit || self.found_bytes >= PAGE_BYTES_MAX
    }

    fn is_over(&self) -> bool {
        self.is_full() || self.examined >= SEARCH_DOCUMENTS_MAX || Instant::now() >= self.deadline
    }
}
