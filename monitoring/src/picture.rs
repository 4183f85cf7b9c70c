//! The dashboard as a picture, for a README: the panels of some rows in their places, drawn of what Prometheus answered to their queries.
//!
//! It owns the drawing, as SVG, and makes up nothing: a panel without an answer is drawn empty.

mod scale;

use std::fmt::Write;

use crate::panels::{Bad, Look, Panel, Row, Unit};
use scale::{shown, ticks};

/// What a query was answered: a line for each series.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// As the panel's legend says.
    pub name: String,
    /// Seconds since the picture's begin, and values; none where there was no value.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 1200.0;
const COLUMN: f64 = WIDTH / 24.0;
const HEAD: f64 = 58.0;
const ROW_TITLE: f64 = 30.0;
const GAP: f64 = 3.0;
const NUMBER_HEIGHT: f64 = 84.0;
const LINES_HEIGHT: f64 = 190.0;

/// Of more lines than this nobody can tell apart.
const LINES_MOST: usize = 8;

/// With more than these, those that are always nothing are left out.
const LINES_OF_NOTHING_MOST: usize = 3;

/// Colours that people who see few colours can tell apart, too (Okabe and Ito).
const COLOURS: [&str; LINES_MOST] = [
    "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#bbbbbb",
];

const PANEL: &str = "#181b1f";
const GREEN: &str = "#73bf69";
const RED: &str = "#ff7383";
const TEXT: &str = "#d8d9da";
const DIM: &str = "#9fa7b3";

/// Draws `rows`, with `answers` giving the lines of each panel, over so many seconds.
pub fn draw(
    title: &str,
    caption: &str,
    rows: &[Row],
    seconds: f64,
    answers: impl Fn(&Panel) -> Vec<Line>,
) -> String {
    let mut body = String::new();
    let mut top = HEAD;
    for row in rows {
        text(&mut body, (6.0, top + 20.0), 14, TEXT, "start", row.title);
        top += ROW_TITLE;
        let mut left = 0.0;
        let mut height = 0.0;
        for panel in row.panels {
            let width = f64::from(panel.width) * COLUMN;
            if left + width > WIDTH + 0.5 {
                left = 0.0;
                top += height;
            }
            height = match panel.look {
                Look::Number { .. } => NUMBER_HEIGHT,
                _ => LINES_HEIGHT,
            };
            let place = Place {
                left: left + GAP,
                top: top + GAP,
                width: width - 2.0 * GAP,
                height: height - 2.0 * GAP,
            };
            place.draw(&mut body, panel, &answers(panel), seconds);
            left += width;
        }
        top += height;
    }
    let height = top + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" role=\"img\">\n\
         <title>{}</title>\n<desc>{}</desc>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#111217\"/>\n",
        escaped(title),
        escaped(caption)
    );
    text(&mut svg, (6.0, 24.0), 18, TEXT, "start", title);
    text(&mut svg, (6.0, 45.0), 12, DIM, "start", caption);
    svg + &body + "</svg>\n"
}

/// Where a panel is.
struct Place {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Place {
    fn draw(&self, svg: &mut String, panel: &Panel, lines: &[Line], seconds: f64) {
        let Self {
            left,
            top,
            width,
            height,
        } = self;
        push(
            svg,
            format_args!(
                "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"3\" fill=\"{PANEL}\" stroke=\"#2a2d33\"/>\n"
            ),
        );
        text(
            svg,
            (left + 8.0, top + 18.0),
            12,
            TEXT,
            "start",
            panel.title,
        );
        match panel.look {
            Look::Number { bad } => self.number(svg, panel.unit, bad, lines),
            Look::Lines => self.lines(svg, panel.unit, lines, false, seconds),
            Look::Stacked => self.lines(svg, panel.unit, lines, true, seconds),
            Look::Table => {}
        }
    }

    fn number(&self, svg: &mut String, unit: Unit, bad: Bad, lines: &[Line]) {
        let last = lines.first().and_then(|line| line.points.last());
        let Some(&(_, value)) = last else { return };
        let colour = match bad {
            Bad::Never => TEXT,
            Bad::AboveZero if value >= 1.0 => RED,
            Bad::BelowOne if value < 1.0 => RED,
            Bad::AboveZero | Bad::BelowOne => GREEN,
        };
        let middle = (self.left + self.width / 2.0, self.top + 60.0);
        text(svg, middle, 30, colour, "middle", &shown(value, unit));
    }

    fn lines(&self, svg: &mut String, unit: Unit, lines: &[Line], stacked: bool, seconds: f64) {
        // Those that have most to say; lines that are always nothing only where there is room for all names.
        let mut chosen: Vec<&Line> = lines.iter().collect();
        let peak = |line: &Line| line.points.iter().map(|point| point.1).fold(0.0, f64::max);
        chosen.sort_by(|a, b| peak(b).total_cmp(&peak(a)));
        while chosen.len() > LINES_OF_NOTHING_MOST
            && chosen.last().is_some_and(|line| peak(line) == 0.0)
        {
            chosen.pop();
        }
        chosen.truncate(LINES_MOST);
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        let curves = curves(&chosen, stacked);
        let highest = curves.iter().flatten().map(|point| point.1);
        let ticks = ticks(highest.fold(0.0, f64::max), unit);
        let ceiling = ticks.last().copied().unwrap_or(1.0);
        let (x0, x1) = (self.left + 62.0, self.left + self.width - 10.0);
        let (y0, y1) = (self.top + self.height - 42.0, self.top + 30.0);
        let x = |second: f64| x0 + (x1 - x0) * second / seconds;
        let y = |value: f64| y0 - (y0 - y1) * value / ceiling;
        for tick in &ticks {
            let at = y(*tick);
            push(
                svg,
                format_args!("<path d=\"M{x0} {at:.1}H{x1}\" stroke=\"#2a2d33\"/>\n"),
            );
            let name = shown(*tick, unit);
            text(svg, (x0 - 6.0, at + 4.0), 10, DIM, "end", &name);
        }
        for minute in 0..=(seconds / 60.0) as u32 {
            let at = x(f64::from(minute) * 60.0);
            let name = format!("{minute}:00");
            text(svg, (at, y0 + 13.0), 10, DIM, "middle", &name);
        }
        // The highest first, so that an area hides what of higher ones lies behind it.
        for (curve, colour) in curves.iter().zip(COLOURS).rev() {
            let mut path = String::new();
            let mut areas = String::new();
            for run in runs(curve) {
                let mut line = String::new();
                for (index, (second, value)) in run.iter().enumerate() {
                    let verb = if index == 0 { 'M' } else { 'L' };
                    push(
                        &mut line,
                        format_args!("{verb}{:.0} {:.1}", x(*second), y(*value)),
                    );
                }
                let ends = run.first().zip(run.last());
                if let Some(((first, _), (last, _))) = ends {
                    push(
                        &mut areas,
                        format_args!("{line}L{:.0} {y0}L{:.0} {y0}Z", x(*last), x(*first)),
                    );
                }
                path += &line;
            }
            if stacked {
                for (fill, opacity) in [(PANEL, 1.0), (colour, 0.25)] {
                    push(
                        svg,
                        format_args!(
                            "<path d=\"{areas}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>\n"
                        ),
                    );
                }
            }
            push(
                svg,
                format_args!(
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n"
                ),
            );
        }
        self.legend(svg, &chosen);
    }

    fn legend(&self, svg: &mut String, lines: &[&Line]) {
        let mut at = self.left + 10.0;
        for (line, colour) in lines.iter().zip(COLOURS) {
            let width = 20.0 + 5.6 * line.name.chars().count() as f64;
            if at + width > self.left + self.width {
                break;
            }
            let y = self.top + self.height - 10.0;
            push(
                svg,
                format_args!(
                    "<rect x=\"{at:.0}\" y=\"{:.0}\" width=\"9\" height=\"3\" fill=\"{colour}\"/>\n",
                    y - 5.0
                ),
            );
            text(svg, (at + 13.0, y), 10, DIM, "start", &line.name);
            at += width;
        }
    }
}

/// The lines, each upon the ones before where they are stacked.
fn curves(lines: &[&Line], stacked: bool) -> Vec<Vec<(f64, f64)>> {
    let mut below: Vec<(f64, f64)> = Vec::new();
    let curve = |line: &&Line| {
        if !stacked {
            return line.points.clone();
        }
        let height = |second: f64| {
            let known = below.iter().find(|(at, _)| (at - second).abs() < 1e-6);
            known.map_or(0.0, |(_, value)| *value)
        };
        let lifted = |&(second, value): &(f64, f64)| (second, value + height(second));
        let curve: Vec<(f64, f64)> = line.points.iter().map(lifted).collect();
        below.clone_from(&curve);
        curve
    };
    lines.iter().map(curve).collect()
}

/// Points without a gap between them that is longer than the usual one.
fn runs(curve: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    let steps = curve.windows(2).map(|two| two[1].0 - two[0].0);
    let usual = steps.fold(f64::INFINITY, f64::min);
    curve.chunk_by(move |a, b| b.0 - a.0 < usual * 1.5)
}

fn text(svg: &mut String, at: (f64, f64), size: u32, colour: &str, anchor: &str, said: &str) {
    let (x, y) = at;
    push(
        svg,
        format_args!(
            "<text x=\"{x:.0}\" y=\"{y:.0}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{}</text>\n",
            escaped(said)
        ),
    );
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = text.write_fmt(what);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::ROWS;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line {
            name: name.to_owned(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn every_panel_is_there_and_what_was_answered_is_drawn() {
        let points: Vec<(f64, f64)> = (0..=60).map(|at| (f64::from(at), f64::from(at))).collect();
        let answers = |panel: &Panel| match panel.title {
            "Bytes by direction" => vec![line("<to> you", &points)],
            _ => Vec::new(),
        };
        let svg = draw("Title", "Caption", &ROWS, 60.0, answers);
        for panel in crate::panels::all() {
            let title = panel.title.replace('&', "&amp;");
            assert!(svg.contains(&format!(">{title}</text>")), "{title}");
        }
        assert!(svg.contains("&lt;to&gt; you"));
        // The path of the line, and those of each panel's grid.
        assert_eq!(svg.matches("stroke-width=\"1.5\"").count(), 1);
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn stacked_lines_lie_upon_each_other_and_gaps_stay() {
        let (a, b) = (
            line("a", &[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]),
            line("b", &[(0.0, 4.0), (2.0, 4.0)]),
        );
        let curves = curves(&[&a, &b], true);
        assert_eq!(curves[1], [(0.0, 5.0), (2.0, 7.0)]);
        let curve = [(0.0, 1.0), (1.0, 1.0), (3.0, 1.0), (4.0, 1.0)];
        let lengths: Vec<usize> = runs(&curve).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 2]);
    }
}
