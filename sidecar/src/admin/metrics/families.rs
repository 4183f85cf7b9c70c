//! Metric families as they are put together at a scrape: a name, its help, its kind and its values.
//!
//! It owns how figures become the `prometheus` crate's types; it knows no metric.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// What a figure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, until the process is started anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by range.
    Histogram,
}

/// Cumulative counts by upper bound, the count of all, and their sum.
pub(super) type Ranges = (Vec<(f64, u64)>, u64, f64);

/// The families of one scrape.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<Family>);

/// One family.
#[derive(Debug)]
pub(super) struct Family {
    kind: Kind,
    family: MetricFamily,
    metrics: Vec<Metric>,
}

impl Families {
    /// Begins a family. `help` says what it is and its unit.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: Kind) -> &mut Family {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(match kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let place = self.0.len();
        self.0.push(Family {
            kind,
            family,
            metrics: Vec::new(),
        });
        &mut self.0[place]
    }

    /// All of them; one without a value is left out.
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        let with_values = self
            .0
            .into_iter()
            .filter(|family| !family.metrics.is_empty());
        with_values
            .map(|mut family| {
                family.family.set_metric(family.metrics);
                family.family
            })
            .collect()
    }
}

impl Family {
    /// Adds a value under these labels.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let mut metric = labelled(labels);
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
        self
    }

    /// Adds counts by range under these labels.
    pub(super) fn add_ranges(&mut self, labels: &[(&str, &str)], ranges: Ranges) -> &mut Self {
        let (bounds, count, sum) = ranges;
        let mut histogram = Histogram::default();
        histogram.set_bucket(
            bounds
                .into_iter()
                .map(|(upper_bound, cumulative)| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(upper_bound);
                    bucket.set_cumulative_count(cumulative);
                    bucket
                })
                .collect(),
        );
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
        self
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}
