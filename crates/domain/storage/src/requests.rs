//! Requests of the API to a controller, which carries them out within its passes.

use std::sync::Arc;

use controller::Ctx;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Requests that wait: the API has few callers that may change things, and each waits for its answer.
const WAITING: usize = 16;

/// The controller's end.
#[derive(Debug)]
pub(crate) struct Requests<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    /// Taken by the task that moves requests to the waiting ones.
    receiver: Option<mpsc::Receiver<T>>,
    waiting: Vec<T>,
}

impl<T: Send + 'static> Requests<T> {
    pub(crate) fn new() -> (Self, mpsc::Sender<T>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(Arc::new(Mutex::new(Inner { receiver: Some(receiver), waiting: Vec::new() }))), sender)
    }

    /// Has requests wake the controller.
    pub(crate) fn listen(&self, ctx: &mut Ctx, name: &'static str) {
        let Some(mut receiver) = self.0.lock().receiver.take() else { return };
        let (waker, inner) = (ctx.waker(), Arc::clone(&self.0));
        let moving = async move {
            while let Some(request) = receiver.recv().await {
                inner.lock().waiting.push(request);
                waker.wake();
            }
        };
        drop(ctx.spawn(name, moving));
    }

    /// All that wait, in their order.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().waiting)
    }
}
