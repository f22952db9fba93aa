//! The stylesheet, the scripts and the icon: part of the binary. (A debug build reads them from the source tree, so
//! that a change shows without compiling.)

use poem::{
    Endpoint, EndpointExt, Response, Result,
    endpoint::{EmbeddedFileEndpoint, EmbeddedFilesEndpoint},
    http::{HeaderValue, StatusCode, header},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "templates/static/"]
struct Assets;

/// Every static file, by its name: to be nested at `/static`.
pub fn static_files() -> impl Endpoint<Output = Response> {
    EmbeddedFilesEndpoint::<Assets>::new().after(finish)
}

/// The module `client.js` alone, at a path of its own for pages of others.
pub fn client_script() -> impl Endpoint<Output = Response> {
    EmbeddedFileEndpoint::<Assets>::new("client.js").after(async |result| {
        let mut response = finish(result).await?;
        // A module of another origin is only imported when that origin says so.
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        Ok(response)
    })
}

async fn finish(result: Result<Response>) -> Result<Response> {
    // "Not modified" comes as an error; here it is an answer like another, and needs the same headers.
    let mut response = match result {
        Err(error) if error.status() == StatusCode::NOT_MODIFIED => error.into_response(),
        other => other?,
    };
    let headers = response.headers_mut();
    // Asked for again each time, and answered 304 as long as it is the same: names carry no version.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
