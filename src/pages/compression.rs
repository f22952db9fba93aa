//! Pages and static files, compressed for those who ask for it. (Poem's own middleware would also inflate the bodies
//! of requests without a bound, compress event streams, and say no `Vary`.)

use std::{io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use poem::{
    Endpoint, IntoResponse, Request, Response, Result,
    http::{HeaderMap, HeaderValue, header},
};

/// A page that is smaller gains nothing worth the work.
const PAGE_BYTES_MIN: usize = 1_024;

/// The page of `endpoint`, compressed: for [`poem::EndpointExt::around`].
pub async fn compress_page<E: Endpoint>(endpoint: Arc<E>, request: Request) -> Result<Response> {
    let is_accepted = is_gzip_accepted(request.headers());
    let mut response = endpoint.call(request).await?.into_response();
    let is_page = response.content_type().is_some_and(|kind| kind.starts_with("text/html"));
    if !is_page {
        return Ok(response);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_accepted {
        let page = response.take_body().into_bytes().await?;
        if page.len() < PAGE_BYTES_MIN {
            response.set_body(page);
        } else {
            response.set_body(packed(&page, Compression::new(4)));
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    Ok(response)
}

/// For what is packed once and sent many times.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    packed(bytes, Compression::best())
}

fn packed(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Writing to memory can not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Whether an answer to a request with these headers may be compressed.
pub(super) fn is_gzip_accepted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_ask_for_gzip_get_it() {
        let table = [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1, GZIP;q=0.5", true),
            ("gzip;q=0, identity", false),
            ("gzip;q=0.0", false),
            ("identity", false),
            ("", false),
        ];
        for (text, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            assert_eq!(is_gzip_accepted(&headers), expected, "{text}");
        }
        assert!(!is_gzip_accepted(&HeaderMap::new()));
    }
}
