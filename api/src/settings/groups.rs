//! The settings, declared: what each means, its unit, default, range, and why that range. It owns those numbers and
//! nothing else; rules between two fields are in `rules`.

use super::Source;
use super::resolve::Report;
use crate::units::{Size, Span};

words! {
    /// How a backoff's delay is spread, so that many workers do not retry in step.
    Jitter {
        /// Anywhere from the floor to the whole delay: the fewest collisions.
        Full = "Full",
        /// From half of the delay to the whole of it.
        Equal = "Equal",
        /// The delay itself; for comparisons, not for crowds.
        None = "None",
    }
}

words! {
    /// Whether the number of operations offered to the kernel at once follows what it takes.
    BatchMode {
        /// Halved on pushback, raised by a little on each clean submission, between `batch.min` and `batch.max`.
        Adaptive = "Adaptive",
        /// Always `batch.max`.
        Fixed = "Fixed",
    }
}

words! {
    /// What happens to readiness when the kernel's pushback lasts.
    ReadinessMode {
        /// The pod goes unready, so that its Services send new connections elsewhere.
        Leave = "Leave",
        /// It is reported in metrics and status only.
        Report = "Report",
    }
}

words! {
    /// What happens to a relay's listener while its target refuses connections.
    TargetCheckMode {
        /// It is closed, so that the kernel answers with a reset, and whoever probes the relay's port sees what they would
        /// see at the target's.
        Close = "Close",
        /// Nothing; it is told in metrics and status.
        Report = "Report",
        /// Nothing is checked.
        Off = "Off",
    }
}

words! {
    /// Which closed connections get a line in the access log.
    AccessLogMode {
        /// None of them.
        Off = "Off",
        /// Those that did not end in an orderly way.
        Errors = "Errors",
        /// All of them.
        All = "All",
    }
}

group! {
    /// How long a worker waits for completions after pushback before it submits again.
    Backoff, BackoffPatch, "backoff" {
        /// The most that the first delay may be; with jitter no delay is below an eighth of it, and none ever below 10us.
        /// 1us to 1s: zero would spin, more would idle a worker for one hiccup.
        initial "initial": Span = Span::from_micros(50), in Span::from_micros(1)..=Span::from_secs(1);
        /// The longest delay. 1us to 10s: beyond that clients have given up.
        max "max": Span = Span::from_millis(50), in Span::from_micros(1)..=Span::from_secs(10);
        /// What each delay is of the one before, in percent. 100 (constant) to 1000: steeper reaches `max` at once anyway.
        multiplier_percent "multiplierPercent": u32 = 200, in 100..=1_000;
        /// How the delay is spread.
        jitter "jitter": Jitter = Jitter::Full;
        /// Delays in a row after which the pushback counts as a stall and load is shed. 1 to 1000; nothing that is
        /// queued is given up then, so a large number only makes the relay slower to say so.
        max_retries "maxRetries": u32 = 10, in 1..=1_000;
    }
}

group! {
    /// How many operations a worker offers to the kernel in one submission.
    Batch, BatchPatch, "batch" {
        /// Whether that number adapts.
        mode "mode": BatchMode = BatchMode::Adaptive;
        /// The fewest operations, also under pushback. 1 to 4096: with none nothing would ever move again.
        min "min": u32 = 8, in 1..=4_096;
        /// The most operations. 1 to 4096; more than 512, what a worker's submission queue holds, is never reached.
        max "max": u32 = 256, in 1..=4_096;
    }
}

group! {
    /// When connections are accepted, and how many.
    Accept, AcceptPatch, "accept" {
        /// Connections open at once in the whole process. 1 to 1000000: each costs two descriptors and a little memory.
        max_connections "maxConnections": u32 = 4_096, in 1..=1_000_000;
        /// Connections open at once from one source in the whole process: an IPv4 address, or the /64 of an IPv6 one. 0 (no
        /// limit) to 1000000. Off by default, because many clients may come from one address: behind a proxy, a load
        /// balancer or a Service that rewrites sources, all of them. Unix sockets have no source.
        per_source "perSource": u32 = 0, in 0..=1_000_000;
        /// Connections accepted per second in the whole process, with bursts of up to a tenth of a second's worth. 1 to
        /// 1000000: zero would be a relay that is up and serves nobody; remove the relay for that.
        max_per_second "maxPerSecond": u32 = 5_000, in 1..=1_000_000;
        /// Arrivals that the kernel holds for a listener while accepting is paused, in connections. 1 to 65535; the kernel
        /// lowers it to `net.core.somaxconn`.
        backlog "backlog": u32 = 4_096, in 1..=65_535;
        /// Accepting pauses when connections, descriptors or buffer pool are in use to this share of their limit, in
        /// percent. 2 to 100; above `resumeBelowPercent`, so that it does not flap.
        pause_above_percent "pauseAbovePercent": u32 = 95, in 2..=100;
        /// Accepting resumes when all of them are below this share of their limit, in percent. 1 to 99: below zero is
        /// never reached.
        resume_below_percent "resumeBelowPercent": u32 = 80, in 1..=99;
        /// Descriptors kept back for the process itself: admin port, logs, settings, resolver, pipes. 8 to 65536: with
        /// fewer a full house could not be probed or drained any more.
        descriptor_reserve "descriptorReserve": u32 = 32, in 8..=65_536;
    }
}

group! {
    /// Memory for bytes on their way through.
    Buffers, BuffersPatch, "buffers" {
        /// The most memory that a worker's pool of receive buffers grows to. 128Ki (two buffers) to 4Gi,
        /// which is all that its buffers' numbers reach.
        pool "pool": Size = Size::from_mib(8), in Size::from_kib(128)..=Size::from_mib(4 << 10);
        /// The most bytes that one direction of a connection may hold when its receiver is slow; also its share of the
        /// pool, so that a stalled consumer holds its own share and never the pool. 4Ki to 1Gi.
        per_direction "perDirection": Size = Size::from_kib(256), in Size::from_kib(4)..=Size::from_mib(1 << 10);
        /// Pipes that a worker pools for splicing streams; each costs two descriptors and, in use, up to 1Mi of kernel
        /// memory. 0 (never splice) to 65536. A stream that finds none is relayed through the pool.
        pipes "pipes": u32 = 128, in 0..=65_536;
    }
}

group! {
    /// How long a connection may take for what it does. All are ends with a counted reason.
    Timeouts, TimeoutsPatch, "timeouts" {
        /// For connecting to one address of a target; a target with several is given this time for each. 1ms to 10m.
        connect "connect": Span = Span::from_secs(2), in Span::from_millis(1)..=Span::from_secs(600);
        /// Without a byte either way. 10ms to 720h (30 days).
        idle "idle": Span = Span::from_secs(3_600), in Span::from_millis(10)..=Span::from_secs(2_592_000);
        /// Without a byte after one side has ended its stream. 10ms to 720h: HTTP clients may legitimately wait long for
        /// the answer to a request they have finished.
        half_close "halfClose": Span = Span::from_secs(60), in Span::from_millis(10)..=Span::from_secs(2_592_000);
        /// For the whole drain, from unready to the end of the last connection, `drainNotice` included. 0s (end all at
        /// once) to 24h. Keep it below the pod's terminationGracePeriodSeconds.
        drain "drain": Span = Span::from_secs(30), in Span::ZERO..=Span::from_secs(86_400);
        /// How long listeners stay open after the pod went unready and before they close, so that Services have stopped
        /// sending by then. 0s (close at once) to 10m.
        drain_notice "drainNotice": Span = Span::from_secs(1), in Span::ZERO..=Span::from_secs(600);
    }
}

group! {
    /// When pushback makes the pod unready, and when it is ready again. Judged per worker.
    Readiness, ReadinessPatch, "readiness" {
        /// What is done about lasting pushback.
        mode "mode": ReadinessMode = ReadinessMode::Leave;
        /// The share of submissions that met pushback from which a worker counts as pushed back, in percent. 1 to 100:
        /// at 0 an idle worker would be.
        pushback_percent "pushbackPercent": u32 = 50, in 1..=100;
        /// How long that lasts before the pod is unready. 10ms to 1h: shorter than a kubelet probe's period is hardly seen.
        unready_after "unreadyAfter": Span = Span::from_secs(2), in Span::from_millis(10)..=Span::from_secs(3_600);
        /// How long it must be quiet before the pod is ready again. 10ms to 1h.
        recover_after "recoverAfter": Span = Span::from_secs(10), in Span::from_millis(10)..=Span::from_secs(3_600);
        /// The share of a policy's pods that may be unready at once, rounded up, in percent. 0 (none may leave) to 100.
        max_unready_percent "maxUnreadyPercent": u32 = 50, in 0..=100;
    }
}

group! {
    /// Looking whether the target takes connections. A check never becomes a connection that the application sees.
    TargetCheck, TargetCheckPatch, "targetCheck" {
        /// What is done about a target that refuses.
        mode "mode": TargetCheckMode = TargetCheckMode::Close;
        /// The longest time from one check to the next; each comes up to a quarter earlier, so that many sidecars do not check in
        /// step. 10ms to 1h: less would be load, more would tell nobody anything.
        interval "interval": Span = Span::from_secs(1), in Span::from_millis(10)..=Span::from_secs(3_600);
        /// Checks in a row that must be refused before a target that took connections counts as refusing. 1 to 100.
        failures "failures": u32 = 2, in 1..=100;
        /// Checks in a row that must not be refused before it counts as taking connections again. 1 (at once) to 100.
        successes "successes": u32 = 1, in 1..=100;
    }
}

group! {
    /// Options of the TCP sockets on both sides.
    Tcp, TcpPatch, "tcp" {
        /// How long a connection is quiet before the kernel probes the peer, in whole seconds. 0s (no probes) to 32767s,
        /// the kernel's own limit.
        keepalive "keepalive": Span = Span::from_secs(60), in Span::ZERO..=Span::from_secs(32_767);
        /// How long sent bytes may stay unacknowledged before the kernel ends the connection (TCP_USER_TIMEOUT), in whole
        /// milliseconds. 0s (the kernel's own patience) to 24h.
        user_timeout "userTimeout": Span = Span::from_secs(30), in Span::ZERO..=Span::from_secs(86_400);
        /// Whether small writes leave at once (TCP_NODELAY) instead of waiting to be joined.
        no_delay "noDelay": bool = true;
    }
}

group! {
    /// One line per closed connection.
    AccessLog, AccessLogPatch, "accessLog" {
        /// Which connections.
        mode "mode": AccessLogMode = AccessLogMode::Errors;
        /// Lines per second in the whole process; those beyond are counted in a line of their own. 1 to 100000: for none
        /// there is mode Off.
        max_per_second "maxPerSecond": u32 = 100, in 1..=100_000;
    }
}

whole! {
    /// Waiting after pushback.
    backoff "backoff": Backoff, BackoffPatch;
    /// Operations per submission.
    batch "batch": Batch, BatchPatch;
    /// Accepting connections.
    accept "accept": Accept, AcceptPatch;
    /// Memory.
    buffers "buffers": Buffers, BuffersPatch;
    /// Time limits.
    timeouts "timeouts": Timeouts, TimeoutsPatch;
    /// Going unready and coming back.
    readiness "readiness": Readiness, ReadinessPatch;
    /// Whether targets take connections.
    target_check "targetCheck": TargetCheck, TargetCheckPatch;
    /// Socket options.
    tcp "tcp": Tcp, TcpPatch;
    /// Lines per connection.
    access_log "accessLog": AccessLog, AccessLogPatch;
}
