//! The whole screen, drawn into memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use shared_model::{InstanceId, ProcessSample, Record, Report};

use super::model::{Flow, Model, Sort, View};
use super::view;

/// The contract's own example, with three more processes of which some numbers are unknown.
fn report() -> Report {
    let golden = include_str!("../../../shared-model/tests/golden/report_full.json");
    let Ok(Record::Report(mut report)) = serde_json::from_str(golden) else { panic!("a report") };
    report.processes.retain(|row| row.instance_id != InstanceId::RESIDUAL);
    for (id, cpu, memory) in [(1, 10, 900), (2, 20, 800), (3, 30, 700)] {
        report.processes.push(ProcessSample {
            instance_id: InstanceId(id),
            process_count: 1,
            cpu_user_us: Some(cpu),
            cpu_system_us: Some(0),
            memory_usage_bytes: Some(memory),
            ..ProcessSample::default()
        });
    }
    report.processes.push(ProcessSample { process_count: 7, ..ProcessSample::default() });
    *report
}

fn screen(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, model)).unwrap();
    let cells = terminal.backend().buffer().content();
    let line =
        |line: &[ratatui::buffer::Cell]| line.iter().map(ratatui::buffer::Cell::symbol).collect();
    cells.chunks(usize::from(width)).map(line).collect::<Vec<String>>().join("\n")
}

fn press(model: &mut Model, code: KeyCode) -> Flow {
    model.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn ids(model: &Model) -> Vec<i64> {
    let rows = &model.report.as_ref().unwrap().processes;
    rows.iter().map(|row| row.instance_id.0).filter(|id| *id < 10).collect()
}

#[test]
fn the_first_screen_before_and_after_a_report() {
    let mut model = Model::default();
    assert!(screen(&mut model, 80, 12).contains("Looking"));
    model.take(report());
    let screen = screen(&mut model, 140, 16);
    for expected in ["PID", "mysql", "mysqld", "4711", "Processes by CPU", "q quit", "mysqld@3306"]
    {
        assert!(screen.contains(expected), "{expected} is not in\n{screen}");
    }
    let row = screen.lines().find(|line| line.contains("ended or not attributed")).unwrap();
    assert!(row.contains('–') && !row.contains('0'), "unknown is no zero: {row}");
}

#[test]
fn keys_sort_and_the_residual_stays_last() {
    let mut model = Model::default();
    model.take(report());
    assert_eq!((ids(&model), model.sort), (vec![3, 2, 1, 0], Sort::Cpu));
    press(&mut model, KeyCode::Char('m'));
    assert_eq!(ids(&model), [1, 2, 3, 0]);
    // Nobody but the example's own process is known to have used these.
    for key in ['d', 'n'] {
        press(&mut model, KeyCode::Char(key));
        let first = model.report.as_ref().unwrap().processes[0].instance_id;
        assert!(first.0 > 10, "{key}: {first:?}");
    }
    assert_eq!(press(&mut model, KeyCode::Char('q')), Flow::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(interrupt), Flow::Quit);
}

#[test]
fn connections_of_one_and_those_that_ended() {
    let mut model = Model::default();
    let report = report();
    let owner = report.connections.iter().find_map(|row| row.instance_id).unwrap();
    model.take(report);
    let at = model.report.as_ref().unwrap().processes.iter();
    let at = at.map(|row| row.instance_id).position(|id| id == owner).unwrap();
    for _ in 0..at {
        press(&mut model, KeyCode::Down);
    }
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.view, View::Connections(owner));
    let shown = screen(&mut model, 120, 12);
    assert!(shown.contains("Connections of 4711") && shown.contains("tcp"), "{shown}");
    press(&mut model, KeyCode::Esc);
    assert_eq!((model.view, model.selected), (View::Processes, at), "back where it was");
    press(&mut model, KeyCode::Char('e'));
    let shown = screen(&mut model, 120, 12);
    assert!(shown.contains("Ended") && shown.contains("signal 9"), "{shown}");
}

#[test]
fn a_small_terminal_and_no_rows_are_no_failure() {
    let mut model = Model::default();
    let mut empty = report();
    (empty.processes, empty.connections) = (Vec::new(), Vec::new());
    model.take(empty);
    for (width, height) in [(1, 1), (10, 3), (80, 5), (300, 100)] {
        for key in [KeyCode::End, KeyCode::PageUp, KeyCode::Enter, KeyCode::Char('e')] {
            press(&mut model, key);
            screen(&mut model, width, height);
        }
    }
    model.take(report());
    for _ in 0..40 {
        press(&mut model, KeyCode::PageDown);
        screen(&mut model, 20, 6);
    }
    assert!(model.selected >= model.offset);
}
