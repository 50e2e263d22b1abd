package admission

import "github.com/prometheus/client_golang/prometheus"

// reason is why a connection was refused; its name is a metric label.
type reason uint8

const (
	refusedRate    reason = iota // the node admits as many a second as it may
	refusedFull                  // it holds as many as it may
	refusedMemory                // its heap is above the budget
	refusedHolding               // the address holds as many as it may
	refusedHurry                 // the address connects too often
	reasons
)

var reasonNames = [reasons]string{"rate", "full", "memory", "address", "address_rate"}

// Metrics counts refusals by reason.
type Metrics struct {
	by [reasons]prometheus.Counter
}

// NewMetrics registers the counters; with a nil registerer they count for nobody.
func NewMetrics(r prometheus.Registerer) *Metrics {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_admission_refused_total", Help: "Connections that were refused before they said who they are, by reason.",
	}, []string{"reason"})
	if r != nil {
		r.MustRegister(v)
	}
	m := &Metrics{}
	for i := range m.by {
		m.by[i] = v.WithLabelValues(reasonNames[i])
	}
	return m
}

func (m *Metrics) refused(why reason) { m.by[why].Inc() }
