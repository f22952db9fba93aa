//! Settings as they may be shown: in force, and without secrets.

use clap::{ArgMatches, CommandFactory};

use super::Config;

/// All settings on one line, as variables: what `matches` has of the command line, of the environment and of the
/// defaults, and `config` has made of it.
pub fn effective(config: &Config, matches: &ArgMatches) -> String {
    let mut shown = Vec::new();
    for argument in Config::command().get_arguments() {
        let Some(variable) = argument.get_env().map(|name| name.to_string_lossy()) else { continue };
        let values = matches.try_get_raw(argument.get_id().as_str()).ok().flatten();
        let value = match &*variable {
            "MONGODB_URI" => config.given_uri().map(|uri| match names_hosts(uri) {
                true => uri_for_others(uri, config.given_database()),
                // What it is meant to be is not known, and so not what in it is a secret.
                false => "(not shown: it names no hosts)".to_owned(),
            }),
            "CONNECTIONS_PER_ADDRESS_MAX" => Some(config.connections_of_address_max().to_string()),
            "REPLAY_BYTES_MAX" => Some(config.bytes_of_replay_max().to_string()),
            "WORKER_THREADS" => Some(config.worker_threads().to_string()),
            "KEEP_ALIVE_SECS" => Some(config.keep_alive().as_secs_f64().to_string()),
            _ => values.map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")),
        };
        shown.push(match value {
            Some(value) if !value.is_empty() => format!("{variable}={value}"),
            _ => format!("{variable} unset"),
        });
    }
    shown.join(" ")
}

/// Whether what should be hosts looks like them. Without its `@`, a password would stand there.
fn names_hosts(uri: &str) -> bool {
    let shown = uri_for_others(uri, Some(""));
    let hosts = shown.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
    let is_host = |host: &str| {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '[' | ']' | ':' | '_');
        !name.is_empty() && name.chars().all(is_name) && port.chars().all(|c| c.is_ascii_digit())
    };
    uri.contains("://") && hosts.split(',').all(is_host)
}

/// What another program on this network needs of the URI: hosts, database, and how to reach them. Never credentials,
/// which may stand in options too.
pub fn uri_for_others(uri: &str, database: Option<&str>) -> String {
    const SHOWN_OPTIONS: [&str; 6] = ["replicaset", "directconnection", "tls", "ssl", "loadbalanced", "authsource"];
    let (scheme, rest) = uri.split_once("://").unwrap_or(("mongodb", uri));
    // A password may have any of the characters that end a part of the URI, so the last `@` counts.
    let (has_credentials, rest) = rest.rsplit_once('@').map_or((false, rest), |(_, rest)| (true, rest));
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, given_database) = rest.split_once('/').unwrap_or((rest, ""));
    let is_shown = |option: &&str| {
        option.split_once('=').is_some_and(|(name, _)| SHOWN_OPTIONS.contains(&name.to_ascii_lowercase().as_str()))
    };
    let mut options: Vec<&str> = options.split('&').filter(is_shown).collect();
    // Credentials are looked for in the database of the URI, if it names one, which is the messages' from here on.
    let source = format!("authSource={}", if given_database.is_empty() { "admin" } else { given_database });
    if has_credentials && !options.iter().any(|option| option.to_ascii_lowercase().starts_with("authsource=")) {
        options.push(&source);
    }
    let question = if options.is_empty() { "" } else { "?" };
    format!("{scheme}://{hosts}/{}{question}{}", database.unwrap_or(given_database), options.join("&"))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn others_are_told_where_the_messages_are_and_no_secret() {
        for (uri, printed) in [
            ("mongodb://u:p@h1,h2/db?replicaSet=rs0", "mongodb://h1,h2/chat?replicaSet=rs0&authSource=db"),
            ("mongodb+srv://u:p%40x@c.example.net", "mongodb+srv://c.example.net/chat?authSource=admin"),
            ("mongodb://u:p?x@h:1/?authSource=other", "mongodb://h:1/chat?authSource=other"),
            (
                "mongodb://h/?tls=true&authMechanismProperties=TOKEN:s&replicaSet=r",
                "mongodb://h/chat?tls=true&replicaSet=r",
            ),
        ] {
            assert_eq!(uri_for_others(uri, Some("chat")), printed);
        }
    }

    #[test]
    fn what_may_be_a_password_in_the_place_of_a_host_is_not_shown() {
        for uri in ["mongodb://user:hunter2", "mongodb://user:hunter2/more", "mongodb://u:p@", "nonsense"] {
            assert!(!names_hosts(uri), "{uri}");
        }
        for uri in
            ["mongodb://h1,h2:27017/?replicaSet=rs0", "mongodb+srv://u:p@c.example.net", "mongodb://[::1]:27017/"]
        {
            assert!(names_hosts(uri), "{uri}");
        }
    }

    #[test]
    fn settings_are_shown_as_they_are_in_force_and_without_secrets() {
        let flags = ["corriente", "--mongodb-uri", "mongodb://u:hunter2@h/db", "--connections-max=10", "--read-only"];
        let flags = flags.iter().chain(&["--allow-origin", "https://a.example,https://b.example", "--silence-secs=5"]);
        let matches = Config::command().get_matches_from(flags);
        let config = Config::from_arg_matches(&matches).unwrap();
        let shown = effective(&config, &matches);
        assert!(!shown.contains("hunter2"), "{shown}");
        for part in [
            "MONGODB_URI=mongodb://h/db?authSource=db ",
            " PORT=3000 ",
            " CONNECTIONS_PER_ADDRESS_MAX=10 ",
            " KEEP_ALIVE_SECS=2.5 ",
            " READ_ONLY=true ",
            " VALIDATOR=false ",
            " ALLOW_ORIGIN=https://a.example,https://b.example ",
            " KEEP_DAYS unset ",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}
