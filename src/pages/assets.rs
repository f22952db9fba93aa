//! The stylesheet, the scripts and the icons: part of the binary. (A debug build reads them from the source tree when
//! it starts, so that a change shows without compiling.)
//!
//! The pages name each file with a hash of what is in it, `style.0a1b2c3d4e.css`, so that a browser keeps it for ever
//! and asks for nothing twice; a module's imports are rewritten to such names before it is hashed itself. Nothing is
//! built beforehand: the names are made, and the files compressed, when the first one is asked for.

use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

use bytes::Bytes;
use poem::{
    Request, Response, Result,
    error::NotFoundError,
    handler,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    web::Path,
};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use super::compression::{gzip, is_gzip_accepted};

#[derive(RustEmbed)]
#[folder = "templates/static/"]
struct Files;

/// How many hexadecimal digits of a file's hash stand in its name.
const HASH_CHARS: usize = 10;
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Asked for again each time, and answered 304 as long as it is the same.
const REVALIDATED: &str = "no-cache";

/// What a page may do that others made, with the scripts that stand in it: no other site can put it into a frame and let people
/// press its buttons unseen.
const PAGE_POLICY: &str = "frame-ancestors 'none'; base-uri 'none'; object-src 'none'";

static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::embedded);

/// The path under which a page names a file of `templates/static/`.
pub(super) fn url_of(name: &str) -> String {
    // A name that is no file's would be a mistake in a template: a test looks for it.
    format!("/static/{}", ASSETS.by_name.get(name).map_or(name, |asset| &asset.hashed_name))
}

/// A module and those that it imports, for the browser to fetch at once rather than one after the other.
pub(super) fn modules(first: &str) -> impl Iterator<Item = String> {
    ASSETS.with_imports(first).into_iter().map(url_of)
}

/// A static file, by the name that [`url_of`] gave it.
#[handler]
pub(crate) fn static_file(Path(asked): Path<String>, request: &Request) -> Result<Response> {
    if let Some(asset) = ASSETS.by_name.values().find(|asset| asset.hashed_name == asked) {
        return Ok(asset.answer(request.headers(), IMMUTABLE));
    }
    // The page may come from a server of another version, which stands beside this one while they are replaced. What
    // this version has under the plain name is whole in itself, and better than a dead page.
    stable(&plain_name(&asked), request.headers())
}

/// Whether there is a file at `path` below `/static/`: one of this server's version, or of another one's.
pub fn is_static(path: &str) -> bool {
    path.strip_prefix("/static/").is_some_and(|asked| ASSETS.by_name.contains_key(&plain_name(asked)))
}

/// The module `client.js` at a path that stays, for pages of others.
#[handler]
pub(crate) fn client_script(request: &Request) -> Result<Response> {
    let mut response = stable("client.js", request.headers())?;
    // A module of another origin is only imported when that origin says so.
    let anybody = header::HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anybody);
    Ok(response)
}

/// What browsers, and others, ask for without being told.
#[handler]
pub(crate) fn favicon(request: &Request) -> Result<Response> {
    stable("favicon.ico", request.headers())
}

fn stable(name: &str, headers: &HeaderMap) -> Result<Response> {
    let asset = ASSETS.by_name.get(name).ok_or(NotFoundError)?;
    Ok(asset.answer(headers, REVALIDATED))
}

/// `chat.js` for `chat.0a1b2c3d4e.js`, and any other name as it is.
fn plain_name(asked: &str) -> String {
    let is_hash = |part: &&str| part.len() == HASH_CHARS && part.chars().all(|c| c.is_ascii_hexdigit());
    asked.split('.').filter(|part| !is_hash(part)).collect::<Vec<_>>().join(".")
}

/// The files by their names in `templates/static/`.
#[derive(Default)]
struct Assets {
    by_name: BTreeMap<String, Asset>,
}

struct Asset {
    hashed_name: String,
    stored: Stored,
    /// The names of the files that it names.
    references: Vec<String>,
}

impl Assets {
    fn embedded() -> Self {
        let mut assets = Self::default();
        for name in Files::iter() {
            assets.add(&name);
        }
        assets
    }

    /// Adds a file after the files that it names: none names itself, not even in a circle, as a test sees to.
    fn add(&mut self, name: &str) {
        let Some(file) = Files::get(name).filter(|_| !self.by_name.contains_key(name)) else {
            return;
        };
        let mut bytes = file.data.into_owned();
        let mut references = Vec::new();
        if let Ok(text) = str::from_utf8(&bytes) {
            let mut text = text.to_owned();
            for other in Files::iter() {
                let reference = format!("\"./{other}\"");
                if text.contains(&reference) {
                    self.add(&other);
                    let hashed = self.by_name.get(&*other).map_or(&*other, |asset| &*asset.hashed_name);
                    text = text.replace(&reference, &format!("\"./{hashed}\""));
                    references.push(other.into_owned());
                }
            }
            bytes = text.into_bytes();
        }
        let stored = Stored::new(bytes);
        let hash = &stored.hash;
        let hashed_name = match name.rsplit_once('.') {
            Some((stem, extension)) => format!("{stem}.{hash}.{extension}"),
            None => format!("{name}.{hash}"),
        };
        self.by_name.insert(name.to_owned(), Asset { hashed_name, stored, references });
    }

    /// The names of a file and of all that it leads to, each once.
    fn with_imports<'a>(&'a self, first: &'a str) -> Vec<&'a str> {
        let mut names = vec![first];
        let mut seen = 0;
        while let Some(asset) = names.get(seen).and_then(|name| self.by_name.get(*name)) {
            seen += 1;
            for other in &asset.references {
                if !names.contains(&other.as_str()) {
                    names.push(other);
                }
            }
        }
        names
    }
}

impl Asset {
    fn answer(&self, asked: &HeaderMap, cache_control: &str) -> Response {
        self.stored.answer(asked, content_type_of(&self.hashed_name), cache_control)
    }
}

/// What is made and packed once, and sent many times from the memory that it is in.
pub(crate) struct Stored {
    hash: String,
    bytes: Bytes,
    /// `None` where compression gains nothing.
    gzip: Option<Bytes>,
}

impl Stored {
    /// Hashes and packs it, which takes some milliseconds for each 100 KB.
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let gzip = Some(gzip(&bytes)).filter(|packed| packed.len() < bytes.len()).map(Bytes::from);
        Self { hash: hash_of(&bytes), bytes, gzip }
    }

    /// The answer to a request with these headers, if what is stored is a page.
    pub(crate) fn page(&self, asked: &HeaderMap) -> Response {
        let mut page = self.answer(asked, "text/html; charset=utf-8", REVALIDATED);
        page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
        page
    }

    fn answer(&self, asked: &HeaderMap, content_type: &str, cache_control: &str) -> Response {
        // Weak: the packed and the plain form have the same one.
        let tag = format!("W/\"{}\"", self.hash);
        let known = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let response = Response::builder()
            .header(header::ETAG, &tag)
            .header(header::CACHE_CONTROL, cache_control)
            .header(header::VARY, "Accept-Encoding")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if known.is_some_and(|tags| tags.contains(&self.hash)) {
            return response.status(StatusCode::NOT_MODIFIED).finish();
        }
        let response = response.content_type(content_type);
        match &self.gzip {
            Some(gzip) if is_gzip_accepted(asked) => {
                response.header(header::CONTENT_ENCODING, "gzip").body(gzip.clone())
            }
            _ => response.body(self.bytes.clone()),
        }
    }
}

fn hash_of(bytes: &[u8]) -> String {
    let mut hash = String::new();
    for byte in Sha256::digest(bytes).iter().take(HASH_CHARS / 2) {
        // Writing to a text can not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

fn content_type_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_between_files_carries_the_hash_of_what_it_names() {
        let assets = Assets::embedded();
        for (name, asset) in &assets.by_name {
            assert_eq!(plain_name(&asset.hashed_name), *name);
            let Ok(text) = str::from_utf8(&asset.stored.bytes) else { continue };
            for reference in text.split("\"./").skip(1) {
                let reference = reference.split('"').next().unwrap();
                // The example for other pages stands in a comment.
                assert!(assets.by_name.values().any(|other| other.hashed_name == reference), "{name}: {reference}");
            }
        }
    }

    #[test]
    fn every_file_that_a_template_names_is_there() {
        let mut count = 0;
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).unwrap() {
            let Ok(text) = std::fs::read_to_string(file.unwrap().path()) else { continue };
            for name in text.split("url_of(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(ASSETS.by_name.contains_key(name), "{name}");
                count += 1;
            }
        }
        assert!(count > 3, "the templates name files");
    }

    #[test]
    fn what_the_first_page_needs_fits_into_its_share() {
        let names = ASSETS.with_imports("chat.js").into_iter().chain(["style.css"]);
        let assets = names.map(|name| &ASSETS.by_name[name]);
        let total: usize = assets.map(|asset| asset.stored.gzip.as_ref().unwrap_or(&asset.stored.bytes).len()).sum();
        // Of 60 KB for the first page in all; 50 messages take about 10.
        assert!(total < 45_000, "{total} bytes");
    }
}
