//! Several things that wait for each other in one task: the client's side of an exchange, the process's side, and what
//! moves between them.
//!
//! When one of them wakes another, tokio sees a task that wakes itself: it puts the task at the end of the queue and wakes
//! another thread to look at it. For a request through a preview that was three threads woken for nothing, and most of
//! what it cost. Here such wakes are answered at once, by another turn in the same poll.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::task::coop::has_budget_remaining;

use crate::limits::PREVIEW_TURNS;

#[derive(Debug, Default)]
struct Turns {
    woken: AtomicBool,
    /// A turn is under way: whoever wakes need not tell the task.
    under_way: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.under_way.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// Runs a future as it is, but polls it again at once when something in it has woken something else in it.
pub(super) async fn in_turns<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let turns = Arc::new(Turns::default());
    let waker = Waker::from(Arc::clone(&turns));
    poll_fn(move |cx| {
        turns.task.register(cx.waker());
        let mut context = Context::from_waker(&waker);
        turns.under_way.store(true, SeqCst);
        for _ in 0..PREVIEW_TURNS {
            turns.woken.store(false, SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Poll::Ready(output);
            }
            // A task that has used up its share of the thread is woken by whatever it polls.
            if !turns.woken.load(SeqCst) || !has_budget_remaining() {
                break;
            }
        }
        turns.under_way.store(false, SeqCst);
        // Woken since the last look, or one that did not get its turn.
        if turns.woken.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc;

    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn exchange() -> (impl Future<Output = u32>, mpsc::Sender<u32>) {
        let (sender, mut asked) = mpsc::channel(1);
        let (answer, mut answers) = mpsc::channel::<u32>(1);
        let asks = async move { answers.recv().await.unwrap_or_default() };
        let answers = async move {
            let asked = asked.recv().await.unwrap_or_default();
            _ = answer.send(asked + 1).await;
            std::future::pending::<()>().await;
        };
        let both = async move {
            tokio::select! {
                biased;
                answer = asks => answer,
                () = answers => 0,
            }
        };
        (both, sender)
    }

    #[test]
    fn what_wakes_itself_goes_on_at_once_and_wakes_nobody_else() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut context = Context::from_waker(&waker);
        let (both, sender) = exchange();
        let mut future = pin!(in_turns(both));
        assert!(future.as_mut().poll(&mut context).is_pending());
        assert_eq!(counted.0.load(SeqCst), 0);
        sender.try_send(6).expect("room");
        assert_eq!(counted.0.load(SeqCst), 1, "from outside the task is woken");
        assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!(counted.0.load(SeqCst), 1);
    }

    #[test]
    fn what_wakes_itself_for_ever_lets_others_run() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut polls = 0;
        let restless = poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let mut future = Box::pin(in_turns(restless));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(future);
        assert_eq!((polls, counted.0.load(SeqCst)), (PREVIEW_TURNS, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        let (sender, mut receiver) = mpsc::channel(1);
        #[allow(clippy::disallowed_methods, reason = "ends with the test")]
        let sending = tokio::spawn(async move {
            for number in 0..50_000_u32 {
                sender.send(number).await.expect("it is taken");
            }
        });
        let received = in_turns(async {
            let mut expected = 0;
            while let Some(number) = receiver.recv().await {
                assert_eq!(number, expected);
                expected += 1;
            }
            expected
        });
        assert_eq!(received.await, 50_000);
        sending.await.expect("it has sent");
    }
}
