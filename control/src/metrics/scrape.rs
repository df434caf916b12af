//! How a part of the service writes its metrics at a scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// The labels of one sample: names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// One scrape under way. Each metric is told once, with all its samples.
pub struct Scrape<'a> {
    encoder: DescriptorEncoder<'a>,
}

/// Observations counted by size.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSample<'a> {
    /// Upper bounds of the buckets, in the metric's unit.
    pub bounds: &'a [f64],
    /// Observations in each bucket alone (not cumulative), and of what lies above the last bound.
    pub counts: &'a [u64],
    /// Sum of all observations.
    pub sum: f64,
}

impl Scrape<'_> {
    /// Tells a counter; `_total` is added to its name.
    pub fn counters<'s, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            // A sample without labels is the only one, and has no braces.
            if labels.is_empty() {
                return ConstCounter::new(value).encode(metric);
            }
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Tells a counter whose name stays as it is, as Kubernetes has it.
    pub fn counts<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for (labels, value) in samples {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Tells a gauge.
    pub fn gauges<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            // A sample without labels is the only one, and has no braces.
            if labels.is_empty() {
                return ConstGauge::new(value).encode(metric);
            }
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Tells a histogram.
    pub fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, HistogramSample<'s>)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, sample) in samples {
            let bounds = sample.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(sample.counts.iter().copied()).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let none = None::<
                &std::collections::HashMap<
                    usize,
                    prometheus_client::metrics::exemplar::Exemplar<[(&str, &str); 0], f64>,
                >,
            >;
            if labels.is_empty() {
                return metric.encode_histogram(sample.sum, count, &buckets, none);
            }
            metric.encode_family(&labels)?.encode_histogram(sample.sum, count, &buckets, none)?;
        }
        Ok(())
    }
}

/// A collector that asks `tell`.
pub(super) fn collector(tell: impl Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static) -> Box<dyn Collector> {
    Box::new(CollectorFn { tell })
}

/// A collector made of a function.
struct CollectorFn<F> {
    tell: F,
}

impl<F> fmt::Debug for CollectorFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CollectorFn")
    }
}

impl<F: Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static> Collector for CollectorFn<F> {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        (self.tell)(&mut Scrape { encoder })
    }
}
