//! The state machine: what must follow from what, and what may never happen in whatever order.

use proptest::prelude::*;

use super::*;

const GRACE: Millis = 5000;

fn exit(status: ExitStatus) -> Exit {
    Exit { status, time_ms: 1, limit: None, usage: Usage::default() }
}

fn machine() -> Machine {
    Machine::new(Memory::new(GRACE, None))
}

/// Applies events at given times; what came out.
fn run(machine: Machine, events: &[(Millis, Event)]) -> (Machine, Vec<Effects>) {
    let mut all = Vec::new();
    let end = events.iter().fold(machine, |machine, (now, event)| {
        let (machine, effects) = machine.step(*now, *event);
        all.push(effects);
        machine
    });
    (end, all)
}

const TERM_TREE: Event = Event::Ask { signal: Signal::TERM, scope: Scope::Tree, cause: Cause::Client };
const OVER: Event = Event::Ended(Usage { cpu_us: 7, max_rss: 8 });

#[test]
fn the_record_waits_for_output_and_tree() {
    let code = exit(ExitStatus::Code(0));
    let (end, effects) = run(machine(), &[(0, Event::Exited(code)), (1, OVER), (2, Event::OutputEnded)]);
    assert!(effects[..2].iter().all(|one| one.record.is_none()));
    let verdict = effects[2].record.expect("recorded");
    assert_eq!((verdict.reason, verdict.usage.cpu_us), (Reason::Exited, 7));
    assert!(end.is_gone());
}

#[test]
fn descendants_that_live_on_delay_the_record_only_a_little() {
    let code = exit(ExitStatus::Code(0));
    let (mid, effects) = run(machine(), &[(0, Event::Exited(code)), (10, Event::OutputEnded)]);
    assert!(effects[1].record.is_none());
    assert_eq!(mid.next_deadline(), Some(60));
    let (end, effects) = run(mid, &[(60, Event::Tick)]);
    assert!(effects[0].record.is_some() && !end.is_over());
}

#[test]
fn output_held_open_delays_the_record_for_the_drain_but_never_before_it_is_caught_up() {
    let code = exit(ExitStatus::Code(0));
    let (mid, _) = run(machine(), &[(0, Event::Exited(code)), (400, OVER)]);
    assert_eq!(mid.next_deadline(), None);
    let (_, effects) = run(mid, &[(9000, Event::Tick), (9001, Event::CaughtUp)]);
    assert!(effects[0].record.is_none() && effects[1].record.is_some());
    let (mid, effects) = run(mid, &[(450, Event::CaughtUp)]);
    assert_eq!((effects[0].record, mid.next_deadline()), (None, Some(500)));
    let (end, effects) = run(mid, &[(500, Event::Tick)]);
    assert!(effects[0].record.is_some() && end.is_over() && !end.is_gone());
}

#[test]
fn an_exit_that_was_told_is_told_again_at_once() {
    let code = exit(ExitStatus::Code(0));
    let adopted = Machine::adopted(Memory::new(GRACE, None), true);
    let (_, effects) = run(adopted, &[(0, Event::Exited(code))]);
    assert!(effects[0].record.is_some());
    let (_, effects) = run(adopted, &[(0, OVER), (0, Event::Exited(code)), (1, Event::OutputEnded)]);
    assert_eq!(effects[1].record.expect("recorded").usage.cpu_us, 7);
    assert_eq!(effects[2].record, None);
}

#[test]
fn a_stop_kills_the_tree_after_the_grace_period_and_goes_on_until_it_is_reaped() {
    let (mid, effects) = run(machine(), &[(0, TERM_TREE)]);
    assert_eq!(effects[0].signal, Some((Signal::TERM, Scope::Tree)));
    assert_eq!(mid.next_deadline(), Some(GRACE));
    let killed = exit(ExitStatus::Signal(15));
    let (mid, effects) = run(mid, &[(1, Event::Exited(killed)), (2, Event::OutputEnded), (99, Event::Tick)]);
    assert_eq!(effects[2].record.expect("recorded").reason, Reason::Killed);
    let (mid, effects) = run(mid, &[(GRACE, Event::Tick), (GRACE + 1000, Event::Tick)]);
    assert!(effects.iter().all(|one| one.signal == Some((Signal::KILL, Scope::Tree))));
    let (end, _) = run(mid, &[(GRACE + 1001, OVER)]);
    assert_eq!((end.next_deadline(), end.is_gone()), (None, true));
}

#[test]
fn a_stop_of_the_leader_leaves_its_descendants_alone() {
    let ask = Event::Ask { signal: Signal::HUP, scope: Scope::Leader, cause: Cause::Client };
    let (end, effects) = run(machine(), &[(0, ask), (GRACE, Event::Tick)]);
    assert_eq!(effects[1].signal, Some((Signal::KILL, Scope::Leader)));
    let (end, _) = run(end, &[(GRACE + 1, Event::Exited(exit(ExitStatus::Signal(9))))]);
    assert_eq!((end.next_deadline(), end.memory.stop), (None, Stop::None));
    let (_, effects) = run(end, &[(GRACE + 2, ask), (GRACE + 3, TERM_TREE)]);
    assert_eq!((effects[0].signal, effects[1].signal), (None, Some((Signal::TERM, Scope::Tree))));
}

#[test]
fn a_second_stop_never_gives_more_time() {
    let again = Event::Ask { signal: Signal::INT, scope: Scope::Tree, cause: Cause::Drain };
    let (mid, effects) = run(machine(), &[(0, TERM_TREE), (3000, again)]);
    assert_eq!((effects[1].signal, mid.next_deadline()), (Some((Signal::INT, Scope::Tree)), Some(GRACE)));
    assert_eq!(mid.stopping(), Some((Reason::Killed, Signal::INT)));
    let kill = Event::Ask { signal: Signal::KILL, scope: Scope::Leader, cause: Cause::Client };
    let (mid, effects) = run(mid, &[(3001, kill)]);
    assert_eq!((effects[0].signal, mid.next_deadline()), (Some((Signal::KILL, Scope::Leader)), Some(4001)));
    assert_eq!(run(mid, &[(4001, Event::Tick)]).1[0].signal, Some((Signal::KILL, Scope::Tree)));
}

#[test]
fn a_timeout_of_any_size_fires_at_its_time_only() {
    let at = (1 << 31) + 5;
    let (end, effects) = run(
        Machine::new(Memory::new(GRACE, Some(at))),
        &[(0, Event::Tick), (at - 1, Event::Tick), (at, Event::Tick)],
    );
    assert_eq!(effects.iter().map(|one| one.signal.is_some()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(end.stopping(), Some((Reason::Timeout, Signal::TERM)));
    let never = Machine::new(Memory::new(u64::MAX, Some(u64::MAX)));
    assert_eq!(run(never, &[(at, TERM_TREE)]).0.next_deadline(), Some(u64::MAX));
}

#[test]
fn the_reason_is_what_ended_it() {
    let usr1 = Event::Send { signal: Signal::from_number(10).expect("SIGUSR1"), scope: Scope::Leader };
    let drain = Event::Ask { signal: Signal::TERM, scope: Scope::Tree, cause: Cause::Drain };
    let limited = |limit| Exit { limit: Some(limit), ..exit(ExitStatus::Signal(9)) };
    // Of a tree that was refused a process at some time.
    let refused = |signal| Exit { limit: Some(LimitHit::Pids), ..exit(ExitStatus::Signal(signal)) };
    let cases: [(&[Event], Exit, Reason); 13] = [
        (&[], exit(ExitStatus::Code(3)), Reason::Exited),
        (&[], exit(ExitStatus::Signal(11)), Reason::Signaled),
        (&[usr1], exit(ExitStatus::Signal(10)), Reason::Killed),
        (&[usr1], exit(ExitStatus::Signal(11)), Reason::Signaled),
        (&[TERM_TREE], exit(ExitStatus::Code(0)), Reason::Killed),
        (&[drain, TERM_TREE], exit(ExitStatus::Signal(15)), Reason::Shutdown),
        (&[TERM_TREE], limited(LimitHit::Memory), Reason::Memory),
        (&[], limited(LimitHit::Pids), Reason::Pids),
        (&[usr1], limited(LimitHit::Pids), Reason::Pids),
        (&[TERM_TREE], refused(15), Reason::Killed),
        (&[drain], refused(15), Reason::Shutdown),
        (&[usr1], refused(10), Reason::Killed),
        (&[TERM_TREE], exit(ExitStatus::Lost), Reason::Lost),
    ];
    for (before, exit, reason) in cases {
        let events: Vec<_> =
            before.iter().copied().chain([Event::Exited(exit), Event::OutputEnded, OVER]).collect();
        let timed: Vec<_> = events.into_iter().map(|event| (0, event)).collect();
        let verdict = run(machine(), &timed).1.last().and_then(|one| one.record).expect("recorded");
        assert_eq!(verdict.reason, reason, "{before:?} {exit:?}");
    }
}

#[test]
fn what_is_sent_after_the_exit_is_no_reason_for_it() {
    let after = [
        TERM_TREE,
        Event::Ask { signal: Signal::KILL, scope: Scope::Tree, cause: Cause::Quota },
        Event::Send { signal: Signal::from_number(11).expect("SIGSEGV"), scope: Scope::Tree },
    ];
    let before = [(ExitStatus::Code(0), Reason::Exited), (ExitStatus::Signal(11), Reason::Signaled)];
    for (event, (status, reason)) in after.into_iter().flat_map(|event| before.map(|one| (event, one))) {
        let (mid, effects) = run(machine(), &[(0, Event::Exited(exit(status))), (100, event)]);
        assert!(effects[1].signal.is_some(), "descendants get it");
        // A bridge that takes over from here learns of the exit anew.
        let adopted = run(Machine::new(mid.memory), &[(200, Event::Exited(exit(status)))]).0;
        for machine in [mid, adopted] {
            let (_, effects) = run(machine, &[(300, Event::CaughtUp), (800, Event::Tick)]);
            let verdict = effects.into_iter().find_map(|one| one.record).expect("recorded");
            assert_eq!(verdict.reason, reason, "{event:?} {status:?}");
        }
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Leader), Just(Scope::Tree)]
}

fn event() -> impl Strategy<Value = Event> {
    let signal = prop_oneof![Just(Signal::TERM), Just(Signal::INT), Just(Signal::HUP), Just(Signal::KILL)];
    let cause = prop_oneof![Just(Cause::Client), Just(Cause::Drain)];
    prop_oneof![
        2 => (signal, scope(), cause).prop_map(|(signal, scope, cause)| Event::Ask { signal, scope, cause }),
        1 => (1..=64, scope()).prop_map(|(number, scope)| {
            Event::Send { signal: Signal::from_number(number).expect("in range"), scope }
        }),
        1 => any::<u8>().prop_map(|code| Event::Exited(exit(ExitStatus::Code(code)))),
        1 => Just(Event::CaughtUp),
        1 => Just(Event::OutputEnded),
        1 => Just(OVER),
        6 => Just(Event::Tick),
    ]
}

/// What has happened so far, as an observer without the machine's state would write it down.
#[derive(Default)]
struct Seen {
    exited_at: Option<Millis>,
    output_ended: bool,
    tree_ended: bool,
    caught_up: bool,
    records: usize,
    tree_stop_since: Option<Millis>,
    tree_killed: bool,
}

impl Seen {
    fn note(&mut self, now: Millis, event: Event) {
        match event {
            Event::Exited(_) => _ = self.exited_at.get_or_insert(now),
            Event::OutputEnded => self.output_ended = true,
            Event::CaughtUp => self.caught_up |= self.exited_at.is_some(),
            Event::Ended(_) => self.tree_ended = true,
            Event::Ask { scope: Scope::Tree, .. } if !self.tree_ended => {
                _ = self.tree_stop_since.get_or_insert(now);
            }
            _ => {}
        }
    }

    fn check(&mut self, now: Millis, machine: &Machine, effects: Effects) {
        if let Some((signal, scope)) = effects.signal {
            assert!(!self.tree_ended, "a signal to nobody");
            assert!(scope == Scope::Tree || self.exited_at.is_none(), "a signal to an ended leader");
            self.tree_killed |= signal == Signal::KILL && scope == Scope::Tree;
        }
        if effects.record.is_some() {
            self.records += 1;
            let exited = self.exited_at.expect("a record without an exit");
            assert!(
                self.output_ended || (self.caught_up && now >= exited + 500),
                "a record before the output"
            );
        }
        assert!(self.records <= 1, "two records");
        assert!(!machine.is_gone() || (self.records == 1 && self.tree_ended && self.output_ended));
    }
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order(
        events in prop::collection::vec((0u64..3000, event()), 1..60), timeout in prop::option::of(0u64..20_000),
    ) {
        let mut machine = Machine::new(Memory::new(GRACE, timeout));
        let (mut now, mut seen) = (0, Seen::default());
        for (wait, event) in events {
            now += wait;
            // As the task does: every deadline that has passed comes first.
            while let Some(due) = machine.next_deadline().filter(|due| *due <= now) {
                let (after, effects) = machine.step(due, Event::Tick);
                machine = after;
                seen.check(due, &machine, effects);
                prop_assert!(machine.next_deadline().is_none_or(|next| next > due), "a deadline that does not move");
            }
            let (after, effects) = machine.step(now, event);
            machine = after;
            seen.note(now, event);
            seen.check(now, &machine, effects);
            let overdue = seen.tree_stop_since.is_some_and(|since| now > since + GRACE);
            prop_assert!(!overdue || seen.tree_killed || seen.tree_ended, "a stop without its kill");
        }
        for event in [Event::Exited(exit(ExitStatus::Code(0))), Event::OutputEnded, OVER] {
            let (after, effects) = machine.step(now, event);
            machine = after;
            seen.note(now, event);
            seen.check(now, &machine, effects);
        }
        prop_assert!(machine.is_gone());
        prop_assert_eq!(machine.next_deadline(), None);
    }
}
