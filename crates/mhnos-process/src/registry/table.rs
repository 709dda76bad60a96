//! Who is there: the numbers, the places, and what has ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use mhnos_keeper::channel::{FIRST_PID, Pid, Welcome};
use tokio::{sync::oneshot, time::Instant};

use super::{Inner, Stats, Tally};
use crate::{
    clock::unix_ms,
    note::{Note, ServiceNote},
    process::Process,
    request::{Settings, SpawnError},
};

/// All that is known of all processes.
#[derive(Debug)]
pub(super) struct Table {
    processes: BTreeMap<Pid, Entry>,
    pending: HashMap<Pid, Pending>,
    /// What an earlier bridge has ordered and the keeper is starting still. They have their places.
    starting: HashSet<Pid>,
    /// Adopted ones that had ended already, and whose records this bridge has not made yet.
    unsettled: HashSet<Pid>,
    /// Ended ones, the longest ended first.
    retired: VecDeque<(Instant, Pid)>,
    /// Places taken: alive or being started, no probes.
    admitted: usize,
    max_processes: usize,
    draining: bool,
    spawned: u64,
    killed: u64,
    service: ServiceNote,
    /// The service's note has changed in a way the next bridge must know.
    pub(super) note_due: bool,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    /// Its place is free.
    over: bool,
    /// And everybody can see that.
    shown: bool,
    killed: bool,
}

/// A program that the keeper has been, or is being, asked to start.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) note: Note,
    pub(super) reply: oneshot::Sender<Result<Arc<Process>, SpawnError>>,
}

/// A place and a number, given back unless the order was sent.
pub(super) struct Admission<'a> {
    inner: &'a Inner,
    pub(super) pid: Pid,
    sent: bool,
}

impl<'a> Admission<'a> {
    pub(super) fn new(inner: &'a Inner, pending: Pending, probe: bool) -> Result<Self, SpawnError> {
        let mut table = inner.lock();
        let pid = table.admit(pending, probe)?;
        inner.alive.send_replace(table.alive());
        Ok(Self { inner, pid, sent: false })
    }

    /// The keeper will answer.
    pub(super) fn sent(mut self) {
        self.sent = true;
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if !self.sent {
            self.inner.not_started(self.pid);
        }
    }
}

impl Inner {
    /// The order was not sent, or refused: what waited for it, if it still does.
    pub(super) fn not_started(&self, pid: Pid) -> Option<Pending> {
        let mut table = self.lock();
        let pending = table.take_pending(pid);
        let had_place = pending.is_some() || table.starting.remove(&pid);
        if had_place && !is_probe(pid) {
            table.admitted -= 1;
        }
        self.alive.send_replace(table.alive());
        // The keeper has seen the number: the next bridge may not use it.
        table.note_due = true;
        self.retire.notify_one();
        pending
    }
}

pub(super) fn is_probe(pid: Pid) -> bool {
    pid < FIRST_PID
}

impl Table {
    /// As an earlier bridge left it, before the adoptions. If its note cannot be read, they alone say what there is: that
    /// the next bridge and all after it end for it helps nobody.
    pub(super) fn new(welcome: &Welcome, settings: &Settings) -> Self {
        let mut service = ServiceNote::decode(&welcome.note).unwrap_or_else(|| {
            tracing::error!("an earlier bridge has left a note that cannot be read; counters begin anew");
            ServiceNote::default()
        });
        // Orders that were on their way when the earlier bridge died used numbers that nobody told of.
        let slack = if welcome.generation > 1 { settings.max_processes as Pid } else { 0 };
        service.next_pid = service.next_pid.max(FIRST_PID).saturating_add(slack);
        service.next_probe = service.next_probe.max(1);
        Self {
            processes: BTreeMap::new(),
            pending: HashMap::new(),
            starting: HashSet::new(),
            unsettled: HashSet::new(),
            retired: VecDeque::new(),
            admitted: 0,
            max_processes: settings.max_processes,
            draining: false,
            spawned: service.forgotten,
            killed: service.forgotten_killed,
            service,
            note_due: false,
        }
    }

    fn admit(&mut self, pending: Pending, probe: bool) -> Result<Pid, SpawnError> {
        if self.draining {
            return Err(SpawnError::Draining);
        }
        if !probe && self.admitted >= self.max_processes {
            return Err(SpawnError::Limit { max: self.max_processes });
        }
        let pid = if probe { self.service.next_probe } else { self.service.next_pid };
        if probe && !is_probe(pid) || pid == Pid::MAX {
            return Err(SpawnError::NoNumber);
        }
        if probe {
            self.service.next_probe += 1;
        } else {
            self.service.next_pid += 1;
            self.admitted += 1;
        }
        self.pending.insert(pid, pending);
        Ok(pid)
    }

    pub(super) fn take_pending(&mut self, pid: Pid) -> Option<Pending> {
        self.pending.remove(&pid)
    }

    /// A pending process was started; its place is taken already. Returns whether it is to be stopped at once.
    pub(super) fn started(&mut self, process: Arc<Process>) -> bool {
        if !is_probe(process.pid) {
            self.spawned += 1;
        }
        self.processes.insert(process.pid, Entry { process, over: false, shown: false, killed: false });
        self.draining
    }

    /// A pending process was started, and cannot be taken over.
    pub(super) fn place_lost(&mut self, pid: Pid) {
        if !is_probe(pid) {
            self.admitted -= 1;
        }
    }

    /// The keeper is gone: what was asked of it will not come.
    pub(super) fn abandon(&mut self) {
        self.pending.clear();
        self.draining = true;
    }

    /// A process that an earlier bridge has ordered takes its place and its number.
    pub(super) fn expect(&mut self, pid: Pid, slack: Pid) {
        if !self.starting.insert(pid) {
            return;
        }
        if is_probe(pid) {
            self.service.next_probe = self.service.next_probe.max(pid + 1);
        } else {
            self.service.next_pid = self.service.next_pid.max(pid.saturating_add(1).saturating_add(slack));
            self.admitted += 1;
        }
    }

    /// It was started. Returns whether it is to be stopped at once.
    pub(super) fn adopted(&mut self, process: Arc<Process>, slack: Pid) -> bool {
        self.expect(process.pid, slack);
        self.starting.remove(&process.pid);
        self.started(process)
    }

    /// It had ended, with its whole tree, before it was adopted.
    pub(super) fn had_ended(&mut self, pid: Pid) {
        self.unsettled.insert(pid);
    }

    /// Whether it had ended before it was adopted, and is not shown as ended yet.
    pub(super) fn is_unsettled(&self, pid: Pid) -> bool {
        self.unsettled.contains(&pid)
    }

    /// Whether all that had ended before is shown as ended.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Whether an earlier bridge was about to have this one forgotten.
    pub(super) fn was_forgetting(&self, pid: Pid) -> bool {
        self.service.forgetting.contains(&pid)
    }

    pub(super) fn count_kill(&mut self, pid: Pid) {
        if let Some(entry) = self.processes.get_mut(&pid).filter(|entry| !entry.killed && !is_probe(pid)) {
            entry.killed = true;
            self.killed += 1;
        }
    }

    pub(super) fn over(&mut self, pid: Pid) {
        let Some(entry) = self.processes.get_mut(&pid).filter(|entry| !entry.over) else { return };
        entry.over = true;
        if !is_probe(pid) {
            self.admitted -= 1;
        }
    }

    /// `ended_ms`: when, as its record says, if its tree ended with it. What had ended before it was adopted is told in no
    /// particular order.
    pub(super) fn shown_over(&mut self, pid: Pid, ended_ms: Option<u64>) {
        if let Some(entry) = self.processes.get_mut(&pid).filter(|entry| !entry.shown) {
            entry.shown = true;
            let had_ended = self.unsettled.remove(&pid);
            let earlier = ended_ms.filter(|_| had_ended);
            let age = earlier.map_or(0, |ended_ms| unix_ms().saturating_sub(ended_ms));
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
            let place = self.retired.partition_point(|(other, _)| *other <= since);
            self.retired.insert(place, (since, pid));
        }
    }

    /// Takes out what is no longer retained, and counts it in the service's note.
    pub(super) fn expire(&mut self, retain_count: usize, retain_for: Duration) -> Vec<Arc<Process>> {
        let now = Instant::now();
        let ended = self.retired.iter().filter(|(_, pid)| !is_probe(*pid)).count();
        let mut excess = ended.saturating_sub(retain_count);
        let (processes, service) = (&mut self.processes, &mut self.service);
        let mut expired = Vec::new();
        service.forgetting.clear();
        self.retired.retain(|(since, pid)| {
            let keep = !is_probe(*pid) && excess == 0 && now.duration_since(*since) < retain_for;
            excess = excess.saturating_sub(usize::from(!is_probe(*pid)));
            if !keep && let Some(entry) = processes.remove(pid) {
                if !is_probe(*pid) {
                    service.forgotten += 1;
                    service.forgotten_killed += u64::from(entry.killed);
                    service.tally(&entry.process.info.process_type).add(&entry.process);
                }
                service.forgetting.push(*pid);
                expired.push(entry.process);
            }
            keep
        });
        expired
    }

    /// When the next one expires by age.
    pub(super) fn next_expiry(&self, retain_for: Duration) -> Option<Instant> {
        self.retired.front().and_then(|(since, _)| since.checked_add(retain_for))
    }

    /// Totals of what is no longer held, by type.
    pub(super) fn forgotten(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.service.tallies.iter().map(|(process_type, tally)| (process_type.as_str(), tally))
    }

    /// Orders of this bridge that the keeper has not answered; no probes.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter().filter(|(pid, _)| !is_probe(**pid)).map(|(_, pending)| pending)
    }

    pub(super) fn service_note(&self) -> &ServiceNote {
        &self.service
    }

    pub(super) fn set_extra(&mut self, extra: Vec<u8>) {
        self.service.extra = extra;
    }

    /// No more starts from now on. Everything that is alive.
    pub(super) fn drain(&mut self) -> Vec<Arc<Process>> {
        self.draining = true;
        self.processes.values().filter(|entry| !entry.over).map(|entry| entry.process.clone()).collect()
    }

    /// By number, probes included.
    pub(super) fn find(&self, pid: Pid) -> Option<&Arc<Process>> {
        self.processes.get(&pid).map(|entry| &entry.process)
    }

    /// Everything held, probes included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.processes.values().map(|entry| &entry.process)
    }

    pub(super) fn get(&self, pid: Pid) -> Option<Arc<Process>> {
        if is_probe(pid) { None } else { self.find(pid).cloned() }
    }

    pub(super) fn list(&self, include_exited: bool) -> Vec<Arc<Process>> {
        let listed = self.processes.range(FIRST_PID..).filter(|(_, entry)| include_exited || !entry.over);
        listed.map(|(_, entry)| entry.process.clone()).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { total_spawned: self.spawned, total_killed: self.killed, active: self.admitted }
    }

    /// Everything alive or being started, probes included.
    pub(super) fn alive(&self) -> usize {
        self.pending.len()
            + self.starting.len()
            + self.processes.values().filter(|entry| !entry.shown).count()
    }
}
