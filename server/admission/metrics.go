package admission

import "github.com/prometheus/client_golang/prometheus"

// reason is why a connection was refused; its name is a metric label.
type reason uint8

const (
	refusedRate     reason = iota // the node admits as many a second as it may
	refusedFull                   // it holds as many as it may
	refusedMemory                 // its heap is above the budget
	refusedHolding                // the address holds as many as it may
	refusedHurry                  // the address connects too often
	refusedRequests               // the address sends too many requests that begin no session
	reasons
)

var reasonNames = [reasons]string{"rate", "full", "memory", "address", "address_rate", "address_requests"}

// closing is why a connection was closed as soon as it was accepted; its name is a metric label.
type closing uint8

const (
	closedDeaf    closing = iota // the node has told as many as it may that they are refused, and the address was among them
	closedDeafTo                 // the address has been told so as often as it may
	closedFull                   // the node has as many connections as it may
	closedHolding                // the address has as many without a session as it may
	closings
)

var closingNames = [closings]string{"refusals", "address_refusals", "connections", "address_connections"}

// Metrics counts refusals and closings by reason.
type Metrics struct {
	by          [reasons]prometheus.Counter
	closings    [closings]prometheus.Counter
	collections prometheus.Counter
}

// NewMetrics registers the counters; with a nil registerer they count for nobody.
func NewMetrics(r prometheus.Registerer) *Metrics {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_admission_refused_total", Help: "Connections that were refused before they said who they are, by reason.",
	}, []string{"reason"})
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_admission_closed_total",
		Help: "Connections that were closed as soon as they were accepted, before anything was read of them, by reason.",
	}, []string{"reason"})
	m := &Metrics{collections: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "carillon_admission_collections_total",
		Help: "Collections of the heap to see whether connections can be taken again after they were refused for memory.",
	})}
	if r != nil {
		r.MustRegister(v, closed, m.collections)
	}
	for i := range m.by {
		m.by[i] = v.WithLabelValues(reasonNames[i])
	}
	for i := range m.closings {
		m.closings[i] = closed.WithLabelValues(closingNames[i])
	}
	return m
}

func (m *Metrics) refused(why reason) { m.by[why].Inc() }

func (m *Metrics) closed(why closing) { m.closings[why].Inc() }
