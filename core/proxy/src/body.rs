//! Bodies on their way through: counted, and with what must happen at their end.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;

use crate::log::RequestLog;
use crate::mirror::Tee;

/// What was seen of a request body; shared with the record of the request.
#[derive(Debug, Default)]
pub(crate) struct RequestProgress {
    pub(crate) bytes: Cell<u64>,
    /// Whether the client's part broke: it was cut, or its framing is wrong.
    pub(crate) broken: Cell<bool>,
    /// Whether the body has been read to its end.
    pub(crate) complete: Cell<bool>,
    /// Whether any of it was handed to an upstream.
    pub(crate) started: Cell<bool>,
}

/// The body of a request to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// All of it, and whether that has been sent.
    Buffered(Option<Bytes>),
    /// The client's, as it comes in.
    Streaming {
        /// The client's body.
        incoming: Incoming,
        /// What was seen of it.
        progress: Progress,
        /// Gathers it for copies of the request.
        tee: Option<Box<Tee>>,
    },
}

impl RequestBody {
    /// A body that is known whole.
    pub(crate) fn buffered(body: Bytes) -> Self {
        Self::Buffered(Some(body))
    }

    /// The same body again; `None` for one that streams.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Buffered(body) => Some(Self::Buffered(body.clone())),
            Self::Streaming { .. } => None,
        }
    }
}

/// What was seen of a body.
#[derive(Debug, Clone)]
pub(crate) struct Progress(pub(crate) Rc<RequestProgress>);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Buffered(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Streaming { incoming, progress, tee } => {
                let mut frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                progress.0.started.set(true);
                if frame.as_ref().is_some_and(|f| f.as_ref().is_ok_and(Frame::is_trailers)) {
                    // RFC 9110 section 6.5.1: a client's trailers are merged into nothing
                    // and, since no endpoint said that it wants them, not passed on.
                    frame = None;
                }
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            let bytes = progress.0.bytes.get() + data.len() as u64;
                            progress.0.bytes.set(bytes);
                            if let Some(tee) = tee {
                                tee.data(data);
                            }
                        }
                        if incoming.is_end_stream() {
                            progress.0.complete.set(true);
                        }
                    }
                    None => progress.0.complete.set(true),
                    Some(Err(_)) => {
                        progress.0.broken.set(true);
                        *tee = None;
                    }
                }
                if progress.0.complete.get()
                    && let Some(tee) = tee.take()
                {
                    tee.end();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Buffered(body) => body.is_none(),
            Self::Streaming { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Buffered(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Self::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The body of an answer to a client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// None, with the record of the request.
    Empty(Option<Box<RequestLog>>),
    /// A short text of ours.
    Text(Option<Bytes>, Option<Box<RequestLog>>),
    /// The upstream's, as it comes in.
    Upstream(Box<UpstreamBody>),
}

/// An upstream's body.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    pub(crate) incoming: Incoming,
    /// Goes back to its pool at the end of the body.
    pub(crate) sender: Option<http1::SendRequest<RequestBody>>,
    /// Written when the body ends, well or not.
    pub(crate) log: Box<RequestLog>,
}

impl UpstreamBody {
    fn finish(&mut self) {
        self.log.completed();
        if let Some(sender) = self.sender.take() {
            self.log.give_back(sender);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty(log) => {
                drop(log.take());
                Poll::Ready(None)
            }
            Self::Text(text, log) => {
                let text = text.take();
                if let Some(log) = log.take() {
                    log.sent(text.as_ref().map_or(0, |text| text.len() as u64));
                }
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Self::Upstream(body) => {
                let frame = ready!(Pin::new(&mut body.incoming).poll_frame(cx));
                let frame = frame.map(|frame| frame.map(clean_trailers));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            body.log.sent(data.len() as u64);
                        }
                        if let Some(trailers) = frame.trailers_ref() {
                            body.log.grpc_status(trailers);
                        }
                        if body.incoming.is_end_stream() {
                            body.finish();
                        }
                    }
                    Some(Err(_)) => body.log.upstream_broke(),
                    None => body.finish(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty(_) => true,
            Self::Text(text, _) => text.is_none(),
            Self::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty(_) => SizeHint::with_exact(0),
            Self::Text(text, _) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Upstream(body) => body.incoming.size_hint(),
        }
    }
}

/// Takes out of an upstream's trailers what is no trailer.
fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            crate::headers::strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
