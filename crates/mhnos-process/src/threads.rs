//! What threads meet at in this crate. With the feature `model-threads` these are the model checker's: it runs a test
//! under every order in which threads can take a lock or be woken (`log/tests/threads.rs`, `make test-threads`).

#[cfg(not(feature = "model-threads"))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(feature = "model-threads")]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(feature = "model-threads")]
pub(crate) use model::Notify;
#[cfg(not(feature = "model-threads"))]
pub(crate) use tokio::sync::Notify;

#[cfg(feature = "model-threads")]
mod model {
    /// As tokio's, for one waiter: a permit that is given before anybody waits is kept.
    #[derive(Debug)]
    pub struct Notify(loom::sync::Notify);

    impl Notify {
        /// Without a permit.
        #[allow(clippy::new_without_default, reason = "as tokio's")]
        pub fn new() -> Self {
            Self(loom::sync::Notify::new())
        }

        /// Gives the permit.
        pub fn notify_one(&self) {
            self.0.notify();
        }

        /// Takes it.
        #[allow(clippy::unused_async, reason = "as tokio's")]
        pub async fn notified(&self) {
            self.wait();
        }

        /// The same, for a thread of a model.
        pub fn wait(&self) {
            self.0.wait();
        }
    }
}
