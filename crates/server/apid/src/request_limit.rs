//! A bound on the bytes of a request. The service behind gathers a message before it looks at it, so what a caller may send
//! is memory that it may take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Whether a request was cut off.
#[derive(Debug, Clone)]
pub(crate) struct CutOff {
    reached: Arc<AtomicBool>,
    most: usize,
}

impl CutOff {
    /// The response to a failed call: request too large, if that is the reason.
    pub(crate) fn explain(&self, status: Status) -> Status {
        if self.reached.load(Ordering::Relaxed) { too_large(self.most) } else { status }
    }
}

fn too_large(most: usize) -> Status {
    Status::resource_exhausted(format!("a request to this method has at most {most} bytes"))
}

/// The request with a body that fails after `most` bytes.
pub(crate) fn limit(request: Request<Body>, most: usize) -> (Request<Body>, CutOff) {
    let cut_off = CutOff { reached: Arc::default(), most };
    let seen = cut_off.clone();
    (request.map(|body| Body::new(LimitedBody { body, left: most, cut_off: seen })), cut_off)
}

struct LimitedBody {
    body: Body,
    left: usize,
    cut_off: CutOff,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Poll::Ready(frame)
            }
            None => {
                self.cut_off.reached.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(too_large(self.cut_off.most))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
