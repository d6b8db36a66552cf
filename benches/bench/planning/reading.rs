//! What the figures say for planning. Every number in these sentences is one of the tables', or made
//! from some of them.

use super::{
    Findings, Row,
    series::{SLOW_MILLIS, To, What},
    tables::micros,
};
use crate::{race::CONCURRENT, report::thousands};

/// The sentences for which everything was measured.
pub(super) fn sentences(findings: &Findings) -> Vec<String> {
    let sentences = [
        processors(findings),
        size(findings),
        fan_out(findings),
        bridges(findings),
        memory(findings),
        broker_memory(findings),
        disk(findings),
    ];
    sentences.into_iter().flatten().collect()
}

impl Findings {
    /// The rows of one series.
    fn rows(&self, what: What, to: To) -> Vec<&Row> {
        let rows = self.rows.iter();
        rows.filter(|row| row.series.what == what && row.series.to == to)
            .collect()
    }

    /// The first and the last row of both series: over HTTP, and to a queue.
    fn ends(&self, what: What) -> Option<[[&Row; 2]; 2]> {
        let ends = |to| {
            let rows = self.rows(what, to);
            Some([*rows.first()?, *rows.last()?])
        };
        Some([ends(To::Http)?, ends(To::Queue)?])
    }
}

fn processors(findings: &Findings) -> Option<String> {
    let [[http, _], [queue, _]] = findings.ends(What::Bytes)?;
    // A thousand times so many millionths of a second.
    let cores = |micros: f64| format!("{:.3}", micros / 1_000.0);
    Some(format!(
        "**Processors.** 1,000 events of {} bytes a second, one subscriber each, are {} of a core for the bridge and {} \
         for RabbitMQ over HTTP, and {} and {} to a queue of the home broker: processor time for each, times 1,000. \
         That is at full load, where much is done together; a trickle costs more for each. Plan with room to spare: \
         the latencies below are with at most a quarter of what passes.",
        http.value,
        cores(http.micros_each),
        cores(http.broker.micros_each),
        cores(queue.micros_each),
        cores(queue.broker.micros_each),
    ))
}

fn size(findings: &Findings) -> Option<String> {
    let sides = findings.ends(What::Bytes)?.map(|[small, large]| {
        let megabytes = |row: &Row| thousands(row.per_second * row.value as f64 / 1e6);
        format!(
            "an event of {} bytes took the bridge {:.0} times and RabbitMQ {:.0} times the processor time of one of {} \
             bytes, and {} MB of the large ones passed in a second beside {} MB of the small",
            thousands(large.value as f64),
            large.micros_each / small.micros_each,
            large.broker.micros_each / small.broker.micros_each,
            small.value,
            megabytes(large),
            megabytes(small),
        )
    });
    let [http, queue] = sides;
    Some(format!("**Size.** Over HTTP {http}. To a queue {queue}."))
}

fn fan_out(findings: &Findings) -> Option<String> {
    let [[one, many], [one_queue, queues]] = findings.ends(What::FanOut)?;
    let went = |from: f64, to: f64| format!("from {} to {} µs", micros(from), micros(to));
    Some(format!(
        "**Fan-out.** With {} subscribers of each event in place of {}, RabbitMQ's processor time for an event went {} \
         over HTTP and {} to queues; the bridge's for a delivery went {} and {}. A delivery over HTTP to a quick \
         subscriber passes no further queue; one to a queue is a message of its own.",
        many.value,
        one.value,
        went(one.broker.micros_each, many.broker.micros_each),
        went(one_queue.broker.micros_each, queues.broker.micros_each),
        went(one.micros_each, many.micros_each),
        went(one_queue.micros_each, queues.micros_each),
    ))
}

fn bridges(findings: &Findings) -> Option<String> {
    let times = |to| {
        let rows = findings.rows(What::Bridges, to);
        let one = rows.first()?.per_second;
        let more = rows.iter().skip(1).map(|row| {
            let times = row.per_second / one;
            format!("{} bridges {times:.1} times", row.value)
        });
        Some(more.collect::<Vec<_>>().join(" and "))
    };
    Some(format!(
        "**Bridges.** Beside one bridge, on this machine whose cores they share with everything else: to an endpoint that \
         answers at once {} as much; to one that answers after {SLOW_MILLIS} ms {}; to a queue {}. A bridge has at \
         most {CONCURRENT} attempts under way to a subscriber (`max_in_flight`), so that it delivers to it at most \
         {CONCURRENT} in the time of an answer: more bridges, or a larger `max_in_flight`, help there. Otherwise a further \
         bridge helps where one has no core left. Run two in any case, so that one may go.",
        times(To::Http)?,
        times(To::SlowHttp)?,
        times(To::Queue)?,
    ))
}

fn memory(findings: &Findings) -> Option<String> {
    let (none, most) = (findings.crowds.first()?, findings.crowds.last()?);
    let [[small, large], _] = findings.ends(What::Bytes)?;
    let more = (most.idle - none.idle) * 1024.0 / f64::from(most.subscribers - none.subscribers);
    Some(format!(
        "**Memory of a bridge.** {:.0} MiB without subscribers and {:.0} MiB with {} in the store, {more:.1} KiB for each; \
         under load at most {:.0} MiB with these. With a backlog of events of {} bytes it had at most {:.0} MiB, with one \
         of {} bytes {:.0} MiB.",
        none.idle,
        most.idle,
        thousands(f64::from(most.subscribers)),
        most.busy,
        small.value,
        small.memory,
        thousands(large.value as f64),
        large.memory,
    ))
}

fn broker_memory(findings: &Findings) -> Option<String> {
    let none = findings.crowds.first()?;
    let [[small, large], _] = findings.ends(What::Bytes)?;
    Some(format!(
        "**Memory of RabbitMQ.** At most {:.0} MiB with {} queues and hardly a backlog; {:.0} MiB over HTTP with a \
         backlog of events of {} bytes, {:.0} MiB with one of {} bytes.",
        none.broker.memory,
        none.broker.queues,
        small.broker.memory,
        small.value,
        large.broker.memory,
        thousands(large.value as f64),
    ))
}

fn disk(findings: &Findings) -> Option<String> {
    let sides = findings.ends(What::Bytes)?.map(|[small, large]| {
        let times = |row: &Row| row.broker.written_each / row.value as f64;
        format!(
            "{:.1} bytes for each byte of an event of {} bytes, {:.1} for each of one of {}",
            times(small),
            small.value,
            times(large),
            thousands(large.value as f64),
        )
    });
    let [http, queue] = sides;
    // On a file system in memory nothing is written.
    let [[small, _], _] = findings.ends(What::Bytes)?;
    if small.broker.written_each == 0.0 {
        return None;
    }
    Some(format!(
        "**Disk.** RabbitMQ wrote {http} over HTTP; {queue} to a queue. In a cluster each node that has a replica writes \
         it. What waits lies on disk for as long: events a second, times their size, times the longest that bridges \
         or subscribers may be away ([rabbitmq.md](rabbitmq.md#sizes))."
    ))
}
