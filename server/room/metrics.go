package room

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/push"
	"carillon/server/task"
	"carillon/server/transport"
	"carillon/server/wire"
)

// dropReason says why a message was not queued. It is a metric label.
type dropReason string

const (
	dropQueueFull dropReason = "queue_full" // non-persistent, and the client does not keep up
	dropInboxFull dropReason = "inbox_full" // a notification; what is persistent comes with the next sweep
)

// Metrics are a room's counters. Labels come from fixed sets, never from what a client sent. Products are such a set: there
// are as many as operators made.
type Metrics struct {
	sessions   *prometheus.GaugeVec
	connects   *prometheus.HistogramVec
	accepts    *prometheus.CounterVec
	closes     *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	frames     prometheus.Counter
	batches    prometheus.Counter
	drops      *prometheus.CounterVec
	gaps       *prometheus.CounterVec
	reads      prometheus.Counter
	repairs    *prometheus.CounterVec
	failures   *prometheus.CounterVec
	lostBodies prometheus.Counter
	reopens    prometheus.Counter
	posts      *prometheus.CounterVec
	events     *prometheus.CounterVec
	uncounts   *prometheus.CounterVec
	tags       prometheus.Gauge
	cutOff     prometheus.Gauge
	cutOffs    *prometheus.CounterVec
}

// NewMetrics makes a room's counters and registers them with reg, if that is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "room", Name: name, Help: help}, labels)
	}
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "room", Name: name, Help: help})
	}
	m := &Metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "room", Name: "connections",
			Help: "Connections held now."}, []string{"transport"}),
		connects: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "carillon", Subsystem: "room",
			Name: "connect_seconds", Help: "From a connect frame to its welcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8)}, []string{"transport"}),
		accepts:    counter("accepts_total", "Connections accepted.", "transport"),
		closes:     counter("closes_total", "Connections ended, by reason.", "transport", "reason"),
		refusals:   counter("refusals_total", "Connects and frames refused, by code.", "code"),
		frames:     one("frames_sent_total", "Frames handed to transports."),
		batches:    one("batches_sent_total", "Batches of frames handed to transports, one write each where they can."),
		drops:      counter("drops_total", "Messages or notifications given up, by reason.", "reason"),
		gaps:       counter("gaps_total", "Gap frames, by reason.", "reason"),
		reads:      one("slot_reads_total", "Slots read from the store."),
		repairs:    counter("repairs_total", "Slots read because a notification was late, lost, did not fit or lacked a body that somebody here is meant to get.", "cause"),
		failures:   counter("store_failures_total", "Calls to store or register that failed.", "call"),
		lostBodies: one("lost_bodies_total", "Entries found without their body. Anything but zero is a fault."),
		reopens:    one("devices_reopened_total", "Devices of live sessions that a store which fell back had forgotten."),
		posts:      counter("posts_total", "Frames that clients sent beside their session, by who took them.", "to"),
		events:     counter("events_total", "Events that clients reported.", "product", "event"),
		uncounts:   counter("task_counts_lost_total", "What was counted of messages of tasks and may not have been added to their counts, by kind.", "kind"),
		tags: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "room", Name: "tags",
			Help: "Different tags that sessions have or had lately."}),
		cutOff: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "room", Name: "cut_off",
			Help: "1 while the room takes no clients, since it has no lease and others have."}),
		cutOffs: counter("cut_off_questions_total", "Times that other rooms were asked for their leases by this one without, by whether one has.", "elsewhere"),
	}
	if reg != nil {
		reg.MustRegister(m.sessions, m.connects, m.accepts, m.closes, m.refusals, m.frames, m.batches, m.drops, m.gaps, m.reads,
			m.repairs, m.failures, m.lostBodies, m.reopens, m.posts, m.events, m.uncounts, m.tags, m.cutOff, m.cutOffs)
	}
	return m
}

// kindNumber is a transport.Kind in one byte, as every session has one.
type kindNumber uint8

var kindNames = [...]transport.Kind{"other", transport.WebSocket, transport.SSE, transport.LongPoll, transport.TCP}

func numberOf(k transport.Kind) kindNumber { return kindNumber(max(0, slices.Index(kindNames[:], k))) }

func (n kindNumber) name() transport.Kind { return kindNames[n] }

func (m *Metrics) accepted(k kindNumber) {
	m.accepts.WithLabelValues(string(k.name())).Inc()
	m.sessions.WithLabelValues(string(k.name())).Inc()
}

func (m *Metrics) closed(k kindNumber, code wire.CloseCode) {
	m.sessions.WithLabelValues(string(k.name())).Dec()
	m.closes.WithLabelValues(string(k.name()), code.String()).Inc()
}

func (m *Metrics) opened(k kindNumber, took time.Duration) {
	m.connects.WithLabelValues(string(k.name())).Observe(took.Seconds())
}

func (m *Metrics) taken(b *transport.Batch) {
	m.frames.Add(float64(len(b.Outs)))
	m.batches.Inc()
}

var gapNames = [...]string{wire.GapLimit: "limit", wire.GapReset: "reset", wire.GapLost: "lost"}

func (m *Metrics) gap(why wire.GapReason) { m.gaps.WithLabelValues(gapNames[why]).Inc() }
func (m *Metrics) refused(code string)    { m.refusals.WithLabelValues(code).Inc() }
func (m *Metrics) dropped(why dropReason) { m.drops.WithLabelValues(string(why)).Inc() }
func (m *Metrics) read(n int)             { m.reads.Add(float64(n)) }
func (m *Metrics) swept()                 { m.repairs.WithLabelValues("sweep").Inc() }
func (m *Metrics) outOfTurn()             { m.repairs.WithLabelValues("out_of_turn").Inc() }
func (m *Metrics) lagged()                { m.repairs.WithLabelValues("queue_full").Inc() }
func (m *Metrics) bare()                  { m.repairs.WithLabelValues("without_body").Inc() }
func (m *Metrics) failed(call string)     { m.failures.WithLabelValues(call).Inc() }
func (m *Metrics) lost()                  { m.lostBodies.Inc() }
func (m *Metrics) reopened()              { m.reopens.Inc() }

func (m *Metrics) asked(elsewhere bool) {
	m.cutOffs.WithLabelValues(strconv.FormatBool(elsewhere)).Inc()
}

// uncounted notes counts that were lost, or may have been.
func (m *Metrics) uncounted(cs []task.Counted) {
	var all task.Counts
	for i := range cs {
		all.Add(cs[i].Counts)
	}
	for k, n := range all {
		if n > 0 {
			m.uncounts.WithLabelValues(task.Kind(k).String()).Add(float64(n))
		}
	}
}

func (m *Metrics) posted(to string, n int) { m.posts.WithLabelValues(to).Add(float64(n)) }

func (m *Metrics) event(p push.ProductID, e wire.EventKind) {
	m.events.WithLabelValues(string(p), e.String()).Inc()
}
