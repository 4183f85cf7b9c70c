//! The picture of a soak: what was sampled, panel under panel over the same time, with every fault marked. It draws what it
//! is given and judges nothing.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Marked;
use super::samples::Sample;

const WIDTH: u32 = 1000;
const HEAD_HEIGHT: u32 = 58;
const PANEL_HEIGHT: u32 = 118;

/// More points than this nobody can tell apart, and the file should stay small.
const MOST_POINTS: usize = 360;

/// Groups of faults, and their colours.
const GROUPS: [(&str, RGBColor); 5] = [
    ("submissions refused", RGBColor(204, 51, 51)),
    ("signals", RGBColor(230, 150, 30)),
    ("settings", RGBColor(60, 130, 200)),
    ("target away", RGBColor(130, 80, 160)),
    ("restart", RGBColor(40, 40, 40)),
];

const LINE: RGBColor = RGBColor(25, 95, 110);

/// A panel's title, and what it shows of a sample.
type Panel = (&'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 9] = [
    ("resident memory, MiB", |sample| {
        sample.resident_bytes / 1_048_576.0
    }),
    ("descriptors", |sample| sample.descriptors),
    ("connections open", |sample| sample.open),
    ("connections per second", |sample| sample.opened_per_second),
    ("MB per second", |sample| sample.bytes_per_second / 1e6),
    ("pushback, percent (worst worker)", |sample| {
        sample.pushback_percent
    }),
    ("submissions refused per second", |sample| {
        sample.refused_per_second
    }),
    ("workers that accept nothing", |sample| sample.accept_paused),
    ("ready (1) or not (0)", |sample| sample.ready),
];

/// Draws it as SVG.
///
/// # Errors
/// That there is nothing to draw, or what the drawing library says.
pub fn draw(
    title: &str,
    samples: &[Sample],
    faults: &[Marked],
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let end = samples
        .last()
        .ok_or("there is no sample to draw")?
        .at_seconds;
    let height = HEAD_HEIGHT + PANEL_HEIGHT * PANELS.len() as u32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(told)?;
        let (head, panels) = root.split_vertically(HEAD_HEIGHT);
        draw_head(&head, title).map_err(told)?;
        let areas = panels.split_evenly((PANELS.len(), 1));
        for ((name, of), area) in PANELS.iter().zip(&areas) {
            let points = thin(samples, *of);
            draw_panel(area, name, &points, end.max(1.0), faults)?;
        }
        root.present().map_err(told)?;
    }
    Ok(svg)
}

fn told(error: impl Error) -> Box<dyn Error + Send + Sync> {
    error.to_string().into()
}

/// At most [`MOST_POINTS`] points for each process: of each run of samples the least and the most, in their order, so that no
/// peak is lost.
fn thin(samples: &[Sample], of: fn(&Sample) -> f64) -> Vec<Vec<(f64, f64)>> {
    let run = (2 * samples.len()).div_ceil(MOST_POINTS).max(1);
    let lives = samples.chunk_by(|a, b| a.life == b.life);
    lives
        .map(|life| {
            let runs = life.chunks(run).flat_map(|run| {
                let point = |sample: &Sample| (sample.at_seconds, of(sample));
                let by_value = |a: &&Sample, b: &&Sample| of(a).total_cmp(&of(b));
                let mut ends: Vec<(f64, f64)> = [
                    run.iter().min_by(by_value).map(point),
                    run.iter().max_by(by_value).map(point),
                ]
                .into_iter()
                .flatten()
                .collect();
                ends.sort_by(|a, b| a.0.total_cmp(&b.0));
                ends.dedup();
                ends
            });
            runs.collect()
        })
        .collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw_head(
    area: &Area<'_>,
    title: &str,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>> {
    area.draw(&Text::new(title, (12, 8), ("sans-serif", 17)))?;
    let mut left = 12;
    for (name, colour) in GROUPS {
        area.draw(&Rectangle::new(
            [(left, 38), (left + 10, 48)],
            colour.filled(),
        ))?;
        area.draw(&Text::new(name, (left + 15, 36), ("sans-serif", 13)))?;
        left += 40 + 7 * name.len() as i32;
    }
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    name: &str,
    lives: &[Vec<(f64, f64)>],
    end: f64,
    faults: &[Marked],
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let most = lives.iter().flatten().map(|(_, value)| *value);
    let top = most.fold(1.0, f64::max) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .margin_left(8)
        .margin_right(16)
        .caption(name, ("sans-serif", 13))
        .x_label_area_size(18)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(told)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_labels(12)
        .y_labels(4)
        .label_style(("sans-serif", 11))
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .draw()
        .map_err(told)?;
    let marks = faults.iter().map(|fault| {
        let colour = GROUPS
            .iter()
            .find(|(group, _)| *group == fault.group)
            .map_or(BLACK, |(_, colour)| *colour);
        let to = fault.to_seconds.max(fault.from_seconds + end / 400.0);
        Rectangle::new(
            [(fault.from_seconds, 0.0), (to.min(end), top)],
            colour.mix(0.25).filled(),
        )
    });
    chart.draw_series(marks).map_err(told)?;
    for life in lives {
        let line = LineSeries::new(life.iter().copied(), LINE.stroke_width(1));
        chart.draw_series(line).map_err(told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32) -> Vec<Sample> {
        (0..count)
            .map(|number| Sample {
                at_seconds: f64::from(number),
                life: 1 + number / 3000,
                resident_bytes: f64::from(number % 50) * 1e6,
                ..Sample::default()
            })
            .collect()
    }

    #[test]
    fn hours_become_a_small_picture_without_losing_a_peak() {
        let mut samples = samples(10_000);
        samples[4321].open = 77.0;
        let points = thin(&samples, |sample| sample.open);
        assert_eq!(points.len(), 4, "one line for each process");
        assert!(
            points
                .iter()
                .flatten()
                .any(|point| *point == (4321.0, 77.0))
        );
        assert!(points.iter().map(Vec::len).sum::<usize>() <= 2 * MOST_POINTS);
        let fault = Marked {
            group: "restart",
            name: "restart by SIGTERM".to_owned(),
            from_seconds: 10.0,
            to_seconds: 12.0,
            may_end_connections: true,
        };
        let svg = draw("A soak", &samples, &[fault]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("resident memory, MiB"), "titles are text");
        assert!(svg.len() < 150_000, "{} bytes", svg.len());
    }

    #[test]
    fn nothing_is_no_picture() {
        assert!(draw("A soak", &[], &[]).is_err());
    }
}
