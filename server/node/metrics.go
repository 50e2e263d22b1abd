package node

import "github.com/prometheus/client_golang/prometheus"

// dropReason says why a delivery did not reach a room. It is a metric label.
type dropReason string

const (
	dropQueueFull   dropReason = "queue_full"  // the room takes less than it is sent
	dropUnreachable dropReason = "unreachable" // or its lease has ended
	dropUnreadable  dropReason = "unreadable"  // of another version, or damaged
	dropClosed      dropReason = "closed"      // this node ends
)

// Metrics are the counters of what goes between nodes. Labels come from fixed sets.
type Metrics struct {
	sent, received prometheus.Counter
	dropped        *prometheus.CounterVec
	failed         prometheus.Counter
	notices        prometheus.Counter
}

// NewMetrics makes the counters and registers them with reg, if that is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "node", Name: name, Help: help})
	}
	m := &Metrics{
		sent:     one("deliveries_sent_total", "Deliveries that rooms of other nodes took."),
		received: one("deliveries_received_total", "Deliveries of other nodes for the room of this one."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "node", Name: "deliveries_dropped_total",
			Help: "Deliveries that reached no room, by reason. What is persistent comes with the room's next sweep."}, []string{"reason"}),
		failed:  one("calls_failed_total", "Calls to other nodes that were not answered."),
		notices: one("notices_total", "Notices that the room of this node obeyed."),
	}
	if reg != nil {
		reg.MustRegister(m.sent, m.received, m.dropped, m.failed, m.notices)
	}
	return m
}

func (m *Metrics) drop(why dropReason, n int) { m.dropped.WithLabelValues(string(why)).Add(float64(n)) }
