//! What is shown and where the user is: reports and keys go in, rows come out. Knows no terminal.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use shared_model::{
    InstanceDefinition, InstanceId, ProcessDefinition, ProcessExit, ProcessId, ProcessSample,
    Report,
};

/// Most ended processes remembered.
const MAX_ENDED: usize = 1000;
/// Rows that `PageUp` and `PageDown` move.
const PAGE: isize = 20;

/// What the rows are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// User and system CPU.
    #[default]
    Cpu,
    /// Resident memory.
    Memory,
    /// Read and written.
    Disk,
    /// Received and transmitted.
    Network,
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// All processes.
    #[default]
    Processes,
    /// The connections of one.
    Connections(InstanceId),
    /// Those that ended lately.
    Ended,
}

/// What a key asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Stay,
    /// The user has seen enough.
    Quit,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Model {
    /// The newest report; its rows in the order of `sort`.
    pub report: Option<Report>,
    /// Newest first.
    pub ended: VecDeque<ProcessExit>,
    /// Order of the processes.
    pub sort: Sort,
    /// What is on the screen.
    pub view: View,
    /// The row of the view the user is at.
    pub selected: usize,
    /// First row drawn; kept by the view so that the selected one is seen.
    pub offset: usize,
    instances: HashMap<InstanceId, InstanceDefinition>,
    processes: HashMap<ProcessId, ProcessDefinition>,
}

impl Model {
    /// Takes over a report; the selection stays on its process.
    pub fn take(&mut self, mut report: Report) {
        let at = self.selected_instance();
        for process in report.process_definitions.drain(..) {
            self.processes.insert(process.process_id, process);
        }
        for instance in report.instance_definitions.drain(..) {
            self.instances.insert(instance.instance_id, instance);
        }
        for exit in report.exits.drain(..) {
            self.ended.push_front(exit);
        }
        self.ended.truncate(MAX_ENDED);
        self.report = Some(report);
        self.forget();
        self.order();
        self.select(at);
    }

    /// Obeys a key.
    pub fn key(&mut self, key: KeyEvent) -> Flow {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Flow::Quit,
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.show(View::Processes),
            KeyCode::Char('c') => self.sort_by(Sort::Cpu),
            KeyCode::Char('m') => self.sort_by(Sort::Memory),
            KeyCode::Char('d') => self.sort_by(Sort::Disk),
            KeyCode::Char('n') => self.sort_by(Sort::Network),
            KeyCode::Char('e') => self.show(View::Ended),
            KeyCode::Enter | KeyCode::Right => {
                if let (View::Processes, Some(instance)) = (self.view, self.selected_instance()) {
                    self.show(View::Connections(instance));
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = usize::MAX,
            _ => {}
        }
        self.selected = self.selected.min(self.len().saturating_sub(1));
        Flow::Stay
    }

    /// Rows of the view.
    pub fn len(&self) -> usize {
        let Some(report) = &self.report else { return 0 };
        match self.view {
            View::Processes => report.processes.len(),
            View::Connections(instance) => {
                report.connections.iter().filter(|row| row.instance_id == Some(instance)).count()
            }
            View::Ended => self.ended.len(),
        }
    }

    /// Whether the view has nothing to show.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What an instance is, once it was described.
    pub fn instance(&self, id: InstanceId) -> Option<&InstanceDefinition> {
        self.instances.get(&id)
    }

    /// What an instance runs.
    pub fn command_line(&self, id: InstanceId) -> Option<&str> {
        self.process(self.instances.get(&id)?.process_id)
    }

    /// The command line of a process.
    pub fn process(&self, id: ProcessId) -> Option<&str> {
        self.processes.get(&id).map(|process| process.command_line.as_str())
    }

    fn selected_instance(&self) -> Option<InstanceId> {
        match self.view {
            View::Processes => {
                let row = self.report.as_ref()?.processes.get(self.selected)?;
                (row.instance_id != InstanceId::RESIDUAL).then_some(row.instance_id)
            }
            View::Connections(_) | View::Ended => None,
        }
    }

    fn show(&mut self, view: View) {
        let from = std::mem::replace(&mut self.view, view);
        (self.selected, self.offset) = (0, 0);
        if let (View::Connections(instance), View::Processes) = (from, view) {
            self.selected = self.position(instance).unwrap_or(0);
        }
    }

    fn position(&self, instance: InstanceId) -> Option<usize> {
        let rows = &self.report.as_ref()?.processes;
        rows.iter().position(|row| row.instance_id == instance)
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.order();
        self.show(View::Processes);
    }

    fn step(&mut self, by: isize) {
        self.selected = self.selected.saturating_add_signed(by);
    }

    /// Goes to the row of `instance`; where it has none, stays where it was.
    fn select(&mut self, instance: Option<InstanceId>) {
        let found = instance.and_then(|id| self.position(id));
        // Who looks at the top wants to see the top, whoever is there now.
        if let Some(found) = found.filter(|_| self.selected > 0 || self.offset > 0) {
            self.selected = found;
        }
        self.selected = self.selected.min(self.len().saturating_sub(1));
    }

    /// Largest first; the unknown and the residual last.
    fn order(&mut self) {
        let sort = self.sort;
        if let Some(report) = &mut self.report {
            report.processes.sort_by_cached_key(|row| {
                let is_residual = row.instance_id == InstanceId::RESIDUAL;
                Reverse((!is_residual, used(row, sort), row.memory_usage_bytes, row.instance_id))
            });
        }
    }

    /// Forgets what nothing on any view refers to.
    fn forget(&mut self) {
        let Some(report) = &self.report else { return };
        let rows = report.processes.iter().map(|row| row.instance_id);
        let kept: HashSet<_> = rows.chain(self.ended.iter().map(|exit| exit.instance_id)).collect();
        self.instances.retain(|id, _| kept.contains(id));
        let exits = self.ended.iter().map(|exit| exit.process_id);
        let used: HashSet<_> =
            self.instances.values().map(|instance| instance.process_id).chain(exits).collect();
        self.processes.retain(|id, _| used.contains(id));
    }
}

/// What a row uses of a resource; `None`: unknown.
fn used(row: &ProcessSample, sort: Sort) -> Option<u64> {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    match sort {
        Sort::Cpu => sum(row.cpu_user_us, row.cpu_system_us),
        Sort::Memory => row.memory_usage_bytes,
        Sort::Disk => sum(row.disk_read_bytes, row.disk_write_bytes),
        Sort::Network => sum(row.network_receive_bytes, row.network_transmit_bytes),
    }
}
