//! A report as an SVG plot: one line per contestant, x on a logarithmic scale where it spans more than two decades, y
//! from zero.

use plotters::prelude::*;

use crate::{
    kit::Result,
    report::{Report, number},
};

const SIZE: (u32, u32) = (720, 420);

/// The plot's text.
pub fn svg(report: &Report) -> Result<String> {
    let points = || report.columns.iter().flat_map(|column| column.points.iter().copied());
    let first = points().map(|(x, _)| x).fold(f64::INFINITY, f64::min);
    let last = points().map(|(x, _)| x).fold(f64::NEG_INFINITY, f64::max);
    if !(first.is_finite() && last.is_finite()) {
        return Err(format!("{} has no figures to plot", report.name).into());
    }
    let logarithmic = first > 0.0 && last / first > 100.0;
    let scaled = |x: f64| if logarithmic { x.log10() } else { x };
    // One x value alone stands in the middle.
    let margin = if first == last { 1.0 } else { 0.0 };
    let top = points().map(|(_, y)| y).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.1;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("{} ({})", report.title, report.y), ("sans-serif", 14))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(scaled(first) - margin..scaled(last) + margin, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(&report.x)
            .x_label_formatter(&|x| number(if logarithmic { 10_f64.powf(*x) } else { *x }))
            .y_label_formatter(&|y| number(*y))
            .draw()?;
        for (index, column) in report.columns.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let line = || column.points.iter().map(|(x, y)| (scaled(*x), *y));
            chart
                .draw_series(LineSeries::new(line(), color.stroke_width(2)))?
                .label(&column.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
            chart.draw_series(line().map(|point| Circle::new(point, 3, color.filled())))?;
        }
        chart.configure_series_labels().border_style(BLACK).background_style(WHITE.mix(0.8)).draw()?;
        root.present()?;
    }
    Ok(svg)
}
