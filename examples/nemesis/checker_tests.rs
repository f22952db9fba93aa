//! A checker that finds nothing proves nothing: each broken promise, made up, must be found.

use super::*;

fn told(content: &str) -> Told {
    Told { room: "a".into(), content: content.into() }
}

fn sent(id: &str, connection: Option<u64>) -> Sent {
    let acknowledged = Some(Instant::now());
    Sent { id: id.into(), writer: "w".into(), told: told(id), connection, attempts: 1, acknowledged }
}

fn ledger(ids: &[&str]) -> Ledger {
    Ledger { sent: ids.iter().map(|id| sent(id, Some(1))).collect(), ..Ledger::default() }
}

fn stored(ids: &[&str]) -> BTreeMap<String, Told> {
    ids.iter().map(|id| ((*id).to_owned(), told(id))).collect()
}

/// A cursor at a time with a key.
fn at(time: u32, key: u32) -> String {
    format!("00000001-{time:016x}-{key:08x}")
}

/// A reader that joined at time 0 and saw these messages: (time, key, id).
fn reader(name: &str, seen: &[(u32, u32, &str)]) -> ReaderLog {
    let mut log = ReaderLog { name: name.into(), ..ReaderLog::default() };
    log.record(Seen::Reloaded { cursor: at(0, 0), messages: BTreeMap::new() });
    log.record(Seen::Joined { after: at(0, 0) });
    for (time, key, id) in seen {
        log.record(Seen::Message { cursor: at(*time, *key), id: (*id).into(), told: told(id) });
    }
    log
}

#[test]
fn a_kept_promise_is_kept() {
    let seen = [(1, 1, "x"), (2, 1, "y"), (2, 2, "z")];
    let readers = [reader("one", &seen), reader("other", &seen)];
    let verdict = check(&ledger(&["x", "y", "z"]), &stored(&["x", "y", "z"]), &readers);
    assert!(verdict.is_kept() && verdict.repeated.is_empty() && verdict.resets.is_empty(), "{verdict}");
}

#[test]
fn what_was_acknowledged_and_is_not_stored_is_lost() {
    let verdict = check(&ledger(&["x"]), &stored(&[]), &[]);
    assert_eq!(verdict.lost.len(), 1);
    let deleted = Ledger { deletes: BTreeSet::from(["x".to_owned()]), ..ledger(&["x"]) };
    assert!(check(&deleted, &stored(&[]), &[]).is_kept(), "deleted is not lost");
}

#[test]
fn what_is_stored_and_a_reader_has_not_seen_is_a_silent_gap() {
    let verdict = check(&ledger(&["x", "y"]), &stored(&["x", "y"]), &[reader("one", &[(2, 1, "y")])]);
    assert_eq!(verdict.unseen.len(), 1, "{verdict}");
}

#[test]
fn what_nobody_wrote_or_was_rolled_back_is_a_phantom() {
    let verdict = check(&ledger(&["x"]), &stored(&["x"]), &[reader("one", &[(1, 1, "x"), (2, 1, "ghost")])]);
    assert_eq!((verdict.phantoms.len(), verdict.diverged.len()), (1, 1), "{verdict}");
}

#[test]
fn every_kind_of_disorder_is_found() {
    let (ledger, stored) = (ledger(&["x", "y"]), stored(&["x", "y"]));
    let one = reader("one", &[(5, 1, "x"), (5, 2, "y")]);
    assert!(check(&ledger, &stored, std::slice::from_ref(&one)).is_kept());
    let falls = reader("falls", &[(5, 1, "x"), (4, 1, "y")]);
    assert!(!check(&ledger, &stored, &[falls]).reordered.is_empty(), "the cursor falls");
    let other = reader("other", &[(5, 2, "y"), (5, 1, "x")]);
    assert!(!check(&ledger, &stored, &[one, other.clone()]).reordered.is_empty(), "two readers disagree");
    assert!(!check(&ledger, &stored, &[other]).reordered.is_empty(), "a sender's order is turned");
}

#[test]
fn an_event_that_is_told_again_is_a_repeat_unless_the_reader_asked_for_it() {
    let (ledger, stored) = (ledger(&["x"]), stored(&["x"]));
    let again = reader("again", &[(1, 1, "x"), (1, 1, "x")]);
    assert_eq!(check(&ledger, &stored, &[again]).repeated.len(), 1);
    let mut reloaded = reader("reloaded", &[(1, 1, "x")]);
    reloaded.record(Seen::Reloaded { cursor: at(0, 0), messages: stored.clone() });
    reloaded.record(Seen::Joined { after: at(0, 0) });
    reloaded.record(Seen::Message { cursor: at(1, 1), id: "x".into(), told: told("x") });
    let verdict = check(&ledger, &stored, &[reloaded]);
    assert_eq!((verdict.repeated.len(), verdict.repeated_as_allowed), (0, 1), "{verdict}");
}

#[test]
fn an_old_version_in_the_end_is_a_divergence() {
    let ledger = Ledger { edits: vec![("x".into(), told("new"))], ..ledger(&["x"]) };
    let stored = BTreeMap::from([("x".to_owned(), told("new"))]);
    let verdict = check(&ledger, &stored, &[reader("one", &[(1, 1, "x")])]);
    assert_eq!(verdict.diverged.len(), 1, "{verdict}");
}

#[test]
fn an_event_that_was_lost_and_that_a_later_one_covers_is_a_silent_gap() {
    let ledger = Ledger { edits: vec![("x".into(), told("x"))], ..ledger(&["x"]) };
    let whole = reader("whole", &[(1, 1, "x"), (2, 1, "x"), (2, 2, "x"), (3, 1, "x")]);
    let verdict_on = |other: &ReaderLog| check(&ledger, &stored(&["x"]), &[whole.clone(), other.clone()]);
    assert!(verdict_on(&whole).is_kept());
    let verdict = verdict_on(&reader("other", &[(1, 1, "x"), (2, 1, "x"), (3, 1, "x")]));
    assert_eq!(verdict.unseen.len(), 1, "{verdict}");
    // Who was cut before it, or began behind it, was told all that it could be.
    assert!(verdict_on(&reader("cut", &[(1, 1, "x"), (2, 1, "x")])).is_kept());
    let mut late = reader("late", &[(1, 1, "x")]);
    late.record(Seen::Reloaded { cursor: at(2, 2), messages: stored(&["x"]) });
    late.record(Seen::Joined { after: at(2, 2) });
    late.record(Seen::Moved { cursor: at(4, 0) });
    assert_eq!(verdict_on(&late).unseen.len(), 1, "and of those behind it");
    let mut silent = whole.clone();
    silent.record(Seen::Reloaded { cursor: at(3, 1), messages: stored(&["x"]) });
    assert!(verdict_on(&silent).is_kept(), "who was told nothing since has missed nothing");
    let mut filtered = reader("filtered", &[(3, 1, "x")]);
    filtered.rooms = vec!["a".into()];
    assert!(verdict_on(&filtered).is_kept(), "who follows other rooms is told another story");
}
