//! Instances, live in a terminal: which, where, how they are; the terminal is given back at any end.

use std::collections::BTreeMap;
use std::io;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;

use super::connection::Client;
use super::failure::Failure;
use super::show::{self, Cell, Colour, Output};
use super::terminal::Ended;
use crate::api::{Change, Instance, Phase, Version};

/// What the screen shows.
#[derive(Debug, Default)]
struct Screen {
    instances: BTreeMap<String, Instance>,
    chosen: TableState,
    troubles_only: bool,
    title: String,
    lost: bool,
}

/// What happens to the screen.
enum Deed {
    Redraw,
    End,
}

/// A terminal that is given back when this is dropped, and by ratatui's hook at a panic.
struct Screened(DefaultTerminal);

impl Drop for Screened {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows instances until q is pressed.
pub async fn top(client: &Client, output: &Output) -> Result<(), Failure> {
    if output.json {
        let hint = "parctl watch --json prints instances and every change of them";
        return Err(Failure::new("top is for a terminal, and has no JSON", hint));
    }
    let version: Version = client.get("/v1/version").await?;
    let mut stream = client.stream("/v1/watch").await?;
    let no_terminal = |error: io::Error| {
        let hint = "parctl watch prints the same as lines";
        Failure::new(format!("there is no terminal: {error}"), hint)
    };
    let unheard = |error: io::Error| Failure::new(format!("signals: {error}"), "free descriptors");
    let mut ended = Ended::new().map_err(unheard)?;
    let terminal = ratatui::try_init().map_err(no_terminal)?;
    let mut screened = Screened(terminal);
    let mut keys = keys();
    let mut screen = Screen {
        title: format!(" parhelion on {} ", version.host),
        ..Screen::default()
    };
    loop {
        let drawn = screened.0.draw(|frame| screen.draw(frame));
        drawn.map_err(no_terminal)?;
        let deed = tokio::select! {
            change = stream.line::<Change>(), if !screen.lost => match change {
                Ok(Some(change)) => screen.apply(change),
                Ok(None) | Err(_) => screen.lose(),
            },
            key = keys.recv() => match key {
                Some(event) => screen.key(&event),
                None => Deed::End,
            },
            _ = ended.comes() => Deed::End,
        };
        match deed {
            Deed::Redraw => {}
            Deed::End => return Ok(()),
        }
    }
}

/// What is pressed, read on a thread that waits for it.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Screen {
    fn apply(&mut self, change: Change) -> Deed {
        match change {
            Change::Snapshot { instances } => {
                let named = instances.into_iter().map(|one| (one.name.clone(), one));
                self.instances = named.collect();
            }
            Change::Changed { instance } => {
                self.instances.insert(instance.name.clone(), *instance);
            }
            Change::Removed { name } => {
                self.instances.remove(&name);
            }
        }
        Deed::Redraw
    }

    fn lose(&mut self) -> Deed {
        self.lost = true;
        Deed::Redraw
    }

    fn key(&mut self, event: &Event) -> Deed {
        let Event::Key(key) = event else {
            return Deed::Redraw;
        };
        if key.kind == KeyEventKind::Release {
            return Deed::Redraw;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.code == KeyCode::Char('q')
            || key.code == KeyCode::Esc
            || (control && key.code == KeyCode::Char('c'))
        {
            return Deed::End;
        }
        if key.code == KeyCode::Down || key.code == KeyCode::Char('j') {
            self.chosen.select_next();
        } else if key.code == KeyCode::Up || key.code == KeyCode::Char('k') {
            self.chosen.select_previous();
        } else if key.code == KeyCode::Char('t') {
            self.troubles_only = !self.troubles_only;
        }
        Deed::Redraw
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [top, middle, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Line::from(self.summary()), top);
        let shown = self.instances.values().filter(|one| {
            let well = one.phase == Phase::Running && !one.flapping && one.fault.is_none();
            !self.troubles_only || !well
        });
        let rows: Vec<Row<'_>> = shown
            .map(|one| Row::new(show::row(one).into_iter().map(text)))
            .collect();
        let widths = [
            Constraint::Fill(3),
            Constraint::Length(20),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Fill(1),
            Constraint::Fill(3),
        ];
        let head = Style::new().add_modifier(Modifier::BOLD);
        let table = Table::new(rows, widths)
            .header(Row::new(show::INSTANCES).style(head))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::bordered().title(self.title.clone()));
        frame.render_stateful_widget(table, middle, &mut self.chosen);
        let help = match self.lost {
            true => "the daemon has ended: what is shown is old.  q ends",
            false => "q ends   up, down choose   t shows troubles only",
        };
        frame.render_widget(Line::from(help), bottom);
    }

    fn summary(&self) -> String {
        let count = |phase| {
            self.instances
                .values()
                .filter(|one| one.phase == phase)
                .count()
        };
        let flapping = self.instances.values().filter(|one| one.flapping).count();
        format!(
            "{} instances: {} running, {} waiting, {flapping} flapping, {} broken",
            self.instances.len(),
            count(Phase::Running),
            count(Phase::Waiting),
            count(Phase::Broken) + count(Phase::Failed),
        )
    }
}

fn text(cell: Cell) -> Line<'static> {
    let (text, colour) = cell.into_parts();
    let style = match colour {
        Colour::Plain => Style::new(),
        Colour::Green => Style::new().fg(Color::Green),
        Colour::Yellow => Style::new().fg(Color::Yellow),
        Colour::Red => Style::new().fg(Color::Red),
        Colour::Dim => Style::new().add_modifier(Modifier::DIM),
    };
    Line::styled(text, style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn the_screen_shows_instances_and_keys_change_it() {
        let job = format!("web:1:{}", "a".repeat(64));
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "name": "web.1.aaaaaaa.0", "job": job, "host": "here", "index": 0, "goal": "start",
            "phase": "running", "health": "ready", "flapping": false, "restarts": 3,
            "nextAttempt": null, "since": null, "ports": {}, "tasks": {}, "fault": null,
        }))
        .unwrap();
        let mut screen = Screen::default();
        screen.apply(Change::Snapshot {
            instances: vec![instance],
        });
        let mut terminal = Terminal::new(TestBackend::new(100, 10)).unwrap();
        let mut shown = |screen: &mut Screen| {
            terminal.draw(|frame| screen.draw(frame)).unwrap();
            terminal.backend().to_string()
        };
        let text = shown(&mut screen);
        assert!(
            text.contains("web.1.aaaaaaa.0") && text.contains("1 running"),
            "{text}"
        );
        let key = |code| Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        screen.key(&key(KeyCode::Char('t')));
        assert!(!shown(&mut screen).contains("web.1.aaaaaaa.0"));
        screen.lose();
        assert!(shown(&mut screen).contains("the daemon has ended"));
        assert!(matches!(screen.key(&key(KeyCode::Char('q'))), Deed::End));
    }
}
