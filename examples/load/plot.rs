//! Plots out of results, as plain SVG: grey text and strong colours on no background, so that they can be read on light
//! and on dark pages.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{
    flags::Rate,
    report::{Outcome, Report},
    run::Measured,
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right and bottom.
const MARGINS: [f64; 4] = [80.0, 44.0, 24.0, 56.0];
/// They can be told apart by people who do not see red and green as others do, and by their dashes.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const DASHES: [&str; 4] = ["none", "7 4", "2 3", "9 3 2 3"];

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// One picture. Both axes are logarithmic: loads and delays go over several powers of ten.
#[derive(Debug)]
struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    series: Vec<Series>,
}

/// Draws all plots for which the files hold points.
pub fn draw(results: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    for path in results {
        let text = fs::read_to_string(path).with_context(|| format!("{} can not be read", path.display()))?;
        let report: Report = serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))?;
        outcomes.extend(report.results);
    }
    let mut plots = plots(&outcomes);
    plots.retain(|plot| plot.series.iter().any(|series| series.points.len() > 1));
    ensure!(!plots.is_empty(), "nothing to draw: measure with --scenario sweep-rate or sweep-readers, and --json FILE");
    fs::create_dir_all(out).with_context(|| format!("{} can not be made", out.display()))?;
    for plot in plots {
        let path = out.join(plot.file);
        fs::write(&path, plot.svg()).with_context(|| format!("{} can not be written", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn plots(outcomes: &[Outcome]) -> Vec<Plot> {
    let rate = |outcome: &Outcome| match outcome.plan.rate {
        Rate::PerSecond(rate) => Some(rate),
        Rate::Max(_) => None,
    };
    let readers = |outcome: &Outcome| Some(outcome.plan.readers as f64);
    let cost = |run: &Measured| run.server_micros_per_delivery;
    let mut delays = Vec::new();
    for (name, of) in
        [("p50", (|run| Some(run.delay?.p50_ms)) as fn(&Measured) -> _), ("p99", |run| Some(run.delay?.p99_ms))]
    {
        delays.extend(
            series(outcomes, "sweep-rate-", rate, of)
                .into_iter()
                .map(|series| Series { name: format!("{} {name}", series.name), ..series }),
        );
    }
    vec![
        Plot {
            file: "delay-against-load.svg",
            title: "Delay, 1,000 readers of one room",
            x: "messages per second",
            y: "delay, ms",
            series: delays,
        },
        Plot {
            file: "cost-against-messages.svg",
            title: "Cost of a delivery, 1,000 readers of one room",
            x: "messages per second",
            y: "server CPU per delivery, µs",
            series: series(outcomes, "sweep-rate-", rate, cost),
        },
        Plot {
            file: "cost-against-readers.svg",
            title: "Cost of a delivery, by the number of readers",
            x: "readers of one room",
            y: "server CPU per delivery, µs",
            series: series(outcomes, "sweep-readers-", readers, cost),
        },
    ]
}

/// A line for each subject: medians of the runs whose name begins with `prefix`.
fn series(
    outcomes: &[Outcome],
    prefix: &str,
    x: impl Fn(&Outcome) -> Option<f64>,
    y: impl Fn(&Measured) -> Option<f64> + Copy,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.name.starts_with(prefix)) {
        let Some(point) = x(outcome).zip(outcome.median(y)).filter(|(x, y)| *x > 0.0 && *y > 0.0) else {
            continue;
        };
        let name = outcome.subject.split(':').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name, points: vec![point] }),
        }
    }
    all.iter_mut().for_each(|series| series.points.sort_by(|one, other| one.0.total_cmp(&other.0)));
    all
}

/// A logarithmic axis, from and to a value of 1, 2 or 5 times a power of ten.
#[derive(Debug)]
struct Axis {
    ticks: Vec<f64>,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let steps: Vec<f64> =
            (-4..10).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power))).collect();
        let first = steps.iter().rposition(|step| *step <= low * 1.001).unwrap_or(0);
        let last = steps.iter().position(|step| *step >= high * 0.999).unwrap_or(steps.len() - 1);
        Self { ticks: steps[first..=last.max(first + 1)].to_vec() }
    }

    /// Where a value lies, between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks[0].ln(), self.ticks[self.ticks.len() - 1].ln());
        (value.ln() - first) / (last - first)
    }
}

impl Plot {
    fn svg(&self) -> String {
        let [left, top, right, bottom] = MARGINS;
        let (width, height) = (WIDTH - left - right, HEIGHT - top - bottom);
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let (across, up) = (Axis::over(points().map(|(x, _)| x)), Axis::over(points().map(|(_, y)| y)));
        let x_of = |x: f64| left + width * across.place(x);
        let y_of = |y: f64| top + height * (1.0 - up.place(y));
        let mut svg = String::new();
        // Writing into a String can not fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#808080\">\n<title>{title}</title>\n\
             <text x=\"{left}\" y=\"20\" font-size=\"15\" font-weight=\"600\">{title}</text>\n",
            title = self.title
        );
        for tick in &across.ticks {
            let (x, end) = (x_of(*tick), top + height);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {top}V{end}\" stroke=\"#808080\" stroke-opacity=\".2\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                end + 18.0,
                label(*tick)
            );
        }
        for tick in &up.ticks {
            let (y, end) = (y_of(*tick), left + width);
            let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{end}\" stroke=\"#808080\" stroke-opacity=\".2\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.0,
                label(*tick)
            );
        }
        let (middle_x, middle_y) = (left + width / 2.0, top + height / 2.0);
        let _ =
            writeln!(svg, "<text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 14.0, self.x);
        let _ = writeln!(
            svg,
            "<text transform=\"translate(20 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y
        );
        for (n, series) in self.series.iter().enumerate() {
            let (colour, dash) = (COLOURS[n % COLOURS.len()], DASHES[n % DASHES.len()]);
            let line: Vec<_> = series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
                line.join(" ")
            );
            for (x, y) in &series.points {
                let _ =
                    writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x_of(*x), y_of(*y));
            }
            let (x, y) = (left + 14.0, top + 16.0 + 18.0 * n as f64);
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {:.1}h26\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>\
                 <text x=\"{}\" y=\"{y}\">{}</text>",
                y - 4.0,
                x + 34.0,
                escaped(&series.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn label(value: f64) -> String {
    if value >= 1_000.0 {
        super::report::count(value)
    } else {
        // Without the error of 0.1 + 0.2.
        format!("{}", (value * 1e6).round() / 1e6)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_reaches_around_its_values() {
        assert_eq!(
            Axis::over([10.0, 4_000.0].into_iter()).ticks,
            [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3]
        );
        let axis = Axis::over([3.0].into_iter());
        assert_eq!(axis.ticks, [2.0, 5.0]);
        assert_eq!((axis.place(2.0), axis.place(5.0)), (0.0, 1.0));
    }

    #[test]
    fn a_plot_has_its_lines_and_labels() {
        let series = Series { name: "a & b".into(), points: vec![(10.0, 1.0), (1_000.0, 20.0)] };
        let plot = Plot { file: "x.svg", title: "Title", x: "readers", y: "delay, ms", series: vec![series] };
        let svg = plot.svg();
        for expected in
            ["<polyline points=\"80.0,364.0 696.0,44.0\"", ">1,000</text>", "delay, ms", "a &amp; b", "</svg>"]
        {
            assert!(svg.contains(expected), "{expected} in {svg}");
        }
    }
}
