//! The request that asks for a tunnel.

use http::uri::Uri;
use http::{HeaderMap, Method, Request, Version};

use crate::authority::{Authority, InvalidAuthority};

/// What a client sends to ask for a tunnel.
#[derive(Debug, Clone)]
pub struct ConnectHead {
    authority: Authority,
    headers: HeaderMap,
}

impl ConnectHead {
    /// Asks for `authority`, with no other header.
    pub fn new(authority: Authority) -> Self {
        Self { authority, headers: HeaderMap::new() }
    }

    /// Reads the authority and asks for it.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthority`] says which part is wrong.
    pub fn parse(authority: &str) -> Result<Self, InvalidAuthority> {
        Ok(Self::new(Authority::parse(authority)?))
    }

    /// Sends these headers (cluster, endpoint, trace context, `forwarded`, …).
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// What is asked for.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The headers, to add to them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The HTTP/2 request.
    ///
    /// Spec: RFC 9113 section 8.5: `:scheme` and `:path` are left out.
    pub(crate) fn request(&self) -> Result<Request<()>, InvalidAuthority> {
        let text = self.authority.to_string();
        // A checked authority is a valid URI authority; the error is for the type's sake.
        let uri = Uri::try_from(&text).map_err(|_| InvalidAuthority::Host { host: text })?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}
