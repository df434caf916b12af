//! Links in what a proxied server answers: those that lead to itself lead through the proxy then.
//!
//! A browser that is at `…/pods/web/proxy/` and follows `<a href="/status">` would leave the proxy. Sources:
//! `rewriteURL` and `atomsToAttrs` in `k8s.io/apimachinery/pkg/util/proxy/transport.go`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame};
use lol_html::{MemorySettings, Settings, element, errors::RewritingError, send};
use parking_lot::Mutex;

/// Of elements, those attributes that are links.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// So much of a page is rewritten at a time: each link in it may become longer by the proxy's path.
const PART: usize = 4096;
/// What a page may have the rewriting keep: one tag at a time, and which elements are open.
const MAX_MEMORY: usize = 1 << 20;

/// What links of a server are judged by.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the proxy, without a slash at its end: `/api/v1/namespaces/a/pods/web/proxy`.
    pub prefix: String,
    /// Where the server is: `10.0.0.7:80`.
    pub server: String,
    /// The host that the client asked.
    pub host: String,
}

impl Links {
    /// The link that leads through the proxy; nothing where `link` may stay as it is.
    pub fn rewritten(&self, link: &str) -> Option<String> {
        let (origin, rest) = split_origin(link);
        let host = origin.rsplit_once("//").map(|(_, host)| host).unwrap_or_default();
        if !host.is_empty() && host != self.server && host != self.host || !rest.starts_with('/') {
            return None;
        }
        let kept = if !host.is_empty() && host == self.host { origin } else { "" };
        let prefix = if rest.starts_with(&self.prefix) { "" } else { &self.prefix };
        let rewritten = format!("{kept}{prefix}{rest}");
        (rewritten != link).then_some(rewritten)
    }

    /// An HTML page with its links rewritten, as it comes.
    pub fn page(self, page: Body) -> Body {
        Body::new(Page::new(self, page))
    }
}

/// Scheme and host, as they stand (`http://10.0.0.7:80`, `//host`), and the rest.
fn split_origin(link: &str) -> (&str, &str) {
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let host_at = match link.find("//") {
        Some(0) => 2,
        Some(at) if link[..at].strip_suffix(':').is_some_and(is_scheme) => at.saturating_add(2),
        _ => return ("", link),
    };
    let length = link[host_at..].find(['/', '?', '#']).unwrap_or(link.len().saturating_sub(host_at));
    link.split_at(host_at.saturating_add(length))
}

/// A page whose links are rewritten while it is read.
struct Page {
    inner: Body,
    /// What was received and not rewritten yet.
    unread: Bytes,
    /// Nothing once the page has ended, or goes on as it is.
    rewriter: Option<Rewriter>,
    written: Arc<Mutex<Vec<u8>>>,
}

type Rewriter = send::HtmlRewriter<'static, Output>;
/// Takes what is rewritten.
type Output = Box<dyn FnMut(&[u8]) + Send>;

impl Page {
    fn new(links: Links, inner: Body) -> Self {
        let links = Arc::new(links);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let handlers = LINKS.map(|(tag, attributes)| {
            let links = links.clone();
            element!(tag, move |element: &mut send::Element<'_, '_>| {
                for name in attributes {
                    let rewritten = element.get_attribute(name).and_then(|link| links.rewritten(&link));
                    if let Some(link) = rewritten {
                        element.set_attribute(name, &link)?;
                    }
                }
                Ok(())
            })
        });
        // A page that takes more goes on as it is.
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MAX_MEMORY)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        // Not strict: a page of any form is passed on.
        let settings = Settings::new_send().with_memory_settings(memory).with_strict(false);
        let settings = handlers.into_iter().fold(settings, Settings::append_element_content_handler);
        let out = written.clone();
        let output: Output = Box::new(move |bytes| out.lock().extend_from_slice(bytes));
        Self { inner, unread: Bytes::new(), rewriter: Some(send::HtmlRewriter::new(settings, output)), written }
    }

    /// What was written since the last call.
    fn take(&self) -> Option<Bytes> {
        let written = std::mem::take(&mut *self.written.lock());
        (!written.is_empty()).then(|| written.into())
    }
}

impl HttpBody for Page {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if self.unread.is_empty() {
                match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        // Trailers are of the page as it was.
                        self.unread = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        let ended = self.rewriter.take().map_or(Ok(()), Rewriter::end);
                        return Poll::Ready(match ended {
                            Ok(()) | Err(RewritingError::MemoryLimitExceeded(_)) => {
                                self.take().map(Frame::data).map(Ok)
                            }
                            Err(error) => Some(Err(axum::Error::new(error))),
                        });
                    }
                }
            }
            let length = self.unread.len().min(PART);
            let part = self.unread.split_to(length);
            let Some(rewriter) = &mut self.rewriter else { return Poll::Ready(Some(Ok(Frame::data(part)))) };
            match rewriter.write(&part) {
                Ok(()) => {}
                // It has written what it held as it came.
                Err(RewritingError::MemoryLimitExceeded(_)) => self.rewriter = None,
                Err(error) => {
                    self.rewriter = None;
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
            }
            if let Some(bytes) = self.take() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::BodyExt;

    use super::*;

    fn links() -> Links {
        Links { prefix: "/api/v1/pods/p/proxy".into(), server: "10.0.0.7:80".into(), host: "localhost:8001".into() }
    }

    #[test]
    fn links_to_the_server_lead_through_the_proxy() {
        for (link, through) in [
            ("/", Some("/api/v1/pods/p/proxy/")),
            ("/a/b/?q=/x#y", Some("/api/v1/pods/p/proxy/a/b/?q=/x#y")),
            ("http://10.0.0.7:80/a", Some("/api/v1/pods/p/proxy/a")),
            ("//10.0.0.7:80/a", Some("/api/v1/pods/p/proxy/a")),
            ("https://localhost:8001/a", Some("https://localhost:8001/api/v1/pods/p/proxy/a")),
            ("http://10.0.0.7:80/api/v1/pods/p/proxy/a", Some("/api/v1/pods/p/proxy/a")),
            ("/api/v1/pods/p/proxy/a", None),
            ("https://localhost:8001/api/v1/pods/p/proxy/", None),
            ("a/b", None),
            ("?q=1", None),
            ("#here", None),
            ("", None),
            ("mailto:a@b", None),
            ("javascript:x//y", None),
            ("http://10.0.0.7/a", None),
            ("http://elsewhere/a", None),
            ("http://10.0.0.7:80", None),
        ] {
            assert_eq!(links().rewritten(link).as_deref(), through, "{link}");
        }
    }

    async fn page(parts: Vec<&'static str>) -> Result<String, axum::Error> {
        let body = Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>)));
        let bytes = links().page(body).collect().await?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_page_comes_with_its_links_rewritten_wherever_it_is_cut() {
        let whole = "<!doctype html><a href=\"/x\" id=1>/x</a><script>if (a < b) f(\"/x\")</script>\
            <IMG SRC=/i.png><p src=/y>&amp;é";
        let expected = "<!doctype html><a href=\"/api/v1/pods/p/proxy/x\" id=1>/x</a><script>if (a < b) f(\"/x\")</script>\
            <IMG SRC=\"/api/v1/pods/p/proxy/i.png\"><p src=/y>&amp;é";
        assert_eq!(page(vec![whole]).await.unwrap(), expected);
        for at in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
            assert_eq!(page(vec![&whole[..at], &whole[at..]]).await.unwrap(), expected, "cut at {at}");
        }
        assert_eq!(page(vec![]).await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_is_rewritten_is_handed_on_in_parts() {
        let whole = "<a href=/></a>".repeat(40_000);
        let mut page = links().page(Body::from(whole));
        let mut length = 0;
        while let Some(frame) = page.frame().await {
            let part = frame.unwrap().into_data().unwrap();
            assert!(part.len() <= PART * 4, "{} bytes at once", part.len());
            length += part.len();
        }
        assert_eq!(length, "<a href=\"/api/v1/pods/p/proxy/\"></a>".len() * 40_000);
    }

    #[tokio::test]
    async fn a_page_that_takes_too_much_memory_goes_on_as_it_is() {
        let endless = format!("<a href=\"{}", "0123456789abcdef".repeat(1 << 18));
        let whole: &'static str = endless.clone().leak();
        assert_eq!(
            page(whole.as_bytes().chunks(1000).map(|part| str::from_utf8(part).unwrap()).collect()).await.unwrap(),
            endless
        );
        // Elements that are never closed.
        let nested: &'static str = "<a href=/>".repeat(200_000).leak();
        let got = page(vec![nested]).await.unwrap();
        assert!(got.starts_with("<a href=\"/api/v1/pods/p/proxy/\">") && got.ends_with("<a href=/>"), "{}", got.len());
        assert_eq!(got.matches("<a href=").count(), 200_000);
    }
}
