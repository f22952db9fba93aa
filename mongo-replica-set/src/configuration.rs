//! How mongods become one replica set, and who of them is primary.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::future::join_all;
use tokio::time::Instant;

use crate::Error;
use crate::member::Member;
use crate::wire::Failure;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Short, because a member that is stopped or in trouble is asked again.
const HELLO_WITHIN: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// A member loads its configuration by asking every address in it whether that is itself. What took
/// its old port may accept the question and never answer; then MongoDB gives up after 30 s.
const LOADED_WITHIN: Duration = Duration::from_secs(40);

/// The member has not loaded its configuration yet.
const NOT_YET_INITIALIZED: i32 = 94;
const ALREADY_INITIALIZED: i32 = 23;

/// Gives new members their first configuration, and members whose ports changed a new one.
pub(crate) async fn apply(members: &[Member], set_name: &str) -> Result<(), Error> {
    let Some(first) = members.first() else {
        return Ok(());
    };
    let mut newest: Option<(&Member, Document)> = None;
    for member in members {
        if let Some(found) = stored(member).await?
            && newest.as_ref().is_none_or(|(_, best)| generation(best) < generation(&found))
        {
            newest = Some((member, found));
        }
    }
    match newest {
        None => initiate(first, initial(members, set_name)).await,
        Some((_, config)) if hosts(&config) == members.iter().map(host).collect::<Vec<_>>() => Ok(()),
        Some((member, config)) => {
            reconfigure(member, with_hosts(config, members), LOADED_WITHIN * members.len() as u32).await
        }
    }
}

/// The configuration in the member's files. Read from there rather than asked for, because a
/// member that has just started answers questions before it has loaded its configuration.
async fn stored(member: &Member) -> Result<Option<Document>, Error> {
    let find = doc! { "find": "system.replset", "limit": 1, "singleBatch": true, "$db": "local" };
    let reply = member.command(find, ANSWER_WITHIN).await.map_err(refused(member, "find"))?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    Ok(batch.ok().and_then(|batch| batch.first()).and_then(Bson::as_document).cloned())
}

fn initial(members: &[Member], set_name: &str) -> Document {
    let entries: Vec<Document> = members
        .iter()
        .map(|member| {
            // Member 0 is preferred, so that tests and people find the primary where they expect
            // it. With a single member there is nobody to prefer it to.
            let priority = if member.index == 0 && members.len() > 1 { 2 } else { 1 };
            doc! { "_id": member.index as i32, "host": host(member), "priority": priority }
        })
        .collect();
    let mut config = doc! { "_id": set_name, "version": 1, "members": entries };
    if members.len() > 1 {
        // The defaults (2 s and 10 s) are for networks. On one machine a dead primary is noticed
        // by its heartbeats, and the others may elect within 1.5 s.
        config.insert("settings", doc! { "heartbeatIntervalMillis": 500, "electionTimeoutMillis": 1500 });
    }
    config
}

async fn initiate(member: &Member, config: Document) -> Result<(), Error> {
    match member.command(doc! { "replSetInitiate": config }, Duration::from_secs(30)).await {
        Ok(_) | Err(Failure::Refused { code: ALREADY_INITIALIZED, .. }) => Ok(()),
        Err(failure) => Err(refused(member, "replSetInitiate")(failure)),
    }
}

/// Forced, because no member is primary while all of them look for themselves at old addresses.
async fn reconfigure(member: &Member, config: Document, within: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + within;
    loop {
        let command = doc! { "replSetReconfig": config.clone(), "force": true };
        match member.command(command, ANSWER_WITHIN).await {
            Ok(_) => return Ok(()),
            Err(Failure::Refused { code: NOT_YET_INITIALIZED, .. }) if Instant::now() < deadline => {
                tokio::time::sleep(POLL_EVERY).await;
            }
            Err(failure) => return Err(refused(member, "replSetReconfig")(failure)),
        }
    }
}

/// Waits until every member is primary or secondary and the primary acknowledges a write on a
/// majority of them.
pub(crate) async fn wait_until_ready(members: &[Member], within: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + within;
    loop {
        check_alive(members)?;
        let states = states(members).await;
        if primary_of(&states).is_none() {
            nominate(members, &states).await;
        }
        if let Some(primary) = primary_of(&states)
            && states.iter().all(|state| state.is_settled())
            && let Some(primary) = members.get(primary)
        {
            // A note in the oplog: a majority write that leaves no document behind.
            let note = doc! {
                "appendOplogNote": 1,
                "data": { "started": true },
                "writeConcern": { "w": "majority", "j": true, "wtimeout": ANSWER_WITHIN.as_millis() as i64 },
            };
            match primary.command(note, ANSWER_WITHIN * 2).await {
                Ok(reply) if !reply.contains_key("writeConcernError") => return Ok(()),
                // Deposed in the meantime, or slow: look again.
                _ if Instant::now() < deadline => {}
                Ok(reply) => return Err(late("a write to a majority", within, format!("{reply}"))),
                Err(failure) => {
                    return Err(late("a write to a majority", within, failure.to_string()));
                }
            }
        }
        if Instant::now() > deadline {
            return Err(late("the start of the replica set", within, describe(&states)));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Saves several members the election timeout (1.5 s) of a start, when nobody can be primary yet,
/// and a second election later, when the preferred member would take over from another one. It is
/// refused until the member sees a majority, or if another has newer writes; then the timeout decides.
async fn nominate(members: &[Member], states: &[State]) {
    if let ([preferred, _, ..], Some(State::Secondary)) = (members, states.first()) {
        let _ = preferred.command(doc! { "replSetStepUp": 1 }, ANSWER_WITHIN).await;
    }
}

/// Waits until one member is primary and accepts writes; its number.
pub(crate) async fn wait_for_primary(members: &[Member], within: Duration) -> Result<usize, Error> {
    let deadline = Instant::now() + within;
    loop {
        let states = states(members).await;
        if let Some(primary) = primary_of(&states) {
            return Ok(primary);
        }
        if Instant::now() > deadline {
            return Err(late("the election of a primary", within, describe(&states)));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What a member says about itself.
enum State {
    Primary {
        election: Option<[u8; 12]>,
    },
    Secondary,
    Other,
    /// Killed, paused, or without an answer.
    Away(String),
}

impl State {
    fn is_settled(&self) -> bool {
        matches!(self, State::Primary { .. } | State::Secondary)
    }
}

async fn states(members: &[Member]) -> Vec<State> {
    join_all(members.iter().map(state)).await
}

async fn state(member: &Member) -> State {
    if !member.is_up() {
        return State::Away("not running".to_owned());
    }
    match member.command(doc! { "hello": 1 }, HELLO_WITHIN).await {
        Ok(hello) if hello.get_bool("isWritablePrimary").unwrap_or(false) => {
            State::Primary { election: hello.get_object_id("electionId").ok().map(|id| id.bytes()) }
        }
        Ok(hello) if hello.get_bool("secondary").unwrap_or(false) => State::Secondary,
        Ok(_) => State::Other,
        Err(failure) => State::Away(failure.to_string()),
    }
}

/// The primary of the latest election: a member that was paused through an election still believes
/// for a moment that it is the primary.
fn primary_of(states: &[State]) -> Option<usize> {
    let primaries = states.iter().enumerate().filter_map(|(index, state)| match state {
        State::Primary { election } => Some((election, index)),
        _ => None,
    });
    primaries.max_by_key(|(election, _)| **election).map(|(_, index)| index)
}

fn describe(states: &[State]) -> String {
    let words = states.iter().enumerate().map(|(index, state)| match state {
        State::Primary { .. } => format!("member {index} is primary"),
        State::Secondary => format!("member {index} is secondary"),
        State::Other => format!("member {index} is neither primary nor secondary"),
        State::Away(why) => format!("member {index}: {why}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn check_alive(members: &[Member]) -> Result<(), Error> {
    members.iter().find_map(Member::unexpected_end).map_or(Ok(()), Err)
}

fn host(member: &Member) -> String {
    format!("127.0.0.1:{}", member.port)
}

fn hosts(config: &Document) -> Vec<String> {
    let members = config.get_array("members").map(Vec::as_slice).unwrap_or_default();
    let entries = members.iter().filter_map(Bson::as_document);
    entries.map(|entry| entry.get_str("host").unwrap_or_default().to_owned()).collect()
}

fn with_hosts(mut config: Document, members: &[Member]) -> Document {
    if let Ok(entries) = config.get_array_mut("members") {
        for (entry, member) in entries.iter_mut().filter_map(Bson::as_document_mut).zip(members) {
            entry.insert("host", host(member));
        }
    }
    config
}

/// Orders configurations: a forced one has a much higher version.
fn generation(config: &Document) -> i64 {
    config.get_i32("version").map(i64::from).or_else(|_| config.get_i64("version")).unwrap_or(0)
}

fn refused(member: &Member, command: &'static str) -> impl FnOnce(Failure) -> Error {
    let member = member.index;
    move |failure| Error::Refused { member, command, why: failure.to_string() }
}

fn late(what: &str, within: Duration, last: String) -> Error {
    Error::TimedOut { what: what.to_owned(), within, last: Some(last) }
}
