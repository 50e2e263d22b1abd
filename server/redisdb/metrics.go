package redisdb

import (
	"errors"
	"time"

	"carillon/server/push"

	"github.com/prometheus/client_golang/prometheus"
)

var classNames = [classes]string{classRead: "read", classPeek: "peek", classLax: "lax", classWrite: "write"}

// Metrics count what is sent to Redis.
type Metrics struct {
	units     [classes]prometheus.Counter
	calls     [classes]prometheus.Counter
	pipelines [classes]prometheus.Observer // seconds
	sizes     [classes]prometheus.Observer // units
	errors    *prometheus.CounterVec
	conflicts prometheus.Counter
	again     prometheus.Counter
	short     prometheus.Counter
	held      prometheus.Counter
}

// NewMetrics registers the metrics; with a nil registerer they count for nobody.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	labels := []string{"class"}
	units := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_redis_units_total", Help: "Units of work sent to Redis, by class.",
	}, labels)
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_redis_calls_total", Help: "Calls of functions that carried them, by class.",
	}, labels)
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "carillon_redis_pipeline_seconds", Help: "Time from sending a pipeline to its last reply, by class.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 13),
	}, labels)
	sizes := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "carillon_redis_pipeline_units", Help: "Units in a pipeline, by class.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
	}, labels)
	m := &Metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_redis_errors_total", Help: "Units that Redis did not do as they were sent, by code and whether they were tried again.",
		}, []string{"code", "again"}),
		conflicts: counter("carillon_redis_conflicts_total", "Writes that were not done because what they were made from had changed."),
		again:     counter("carillon_redis_again_total", "Units that surely were not executed and were sent again."),
		short:     counter("carillon_redis_short_of_replicas_total", "Pipelines of writes that fewer replicas confirmed than are configured."),
		held: counter("carillon_redis_held_back_total",
			"Times that writes had to wait because the server held back what it would write to its file while a flush was under way."),
	}
	if r != nil {
		r.MustRegister(units, calls, seconds, sizes, m.errors, m.conflicts, m.again, m.short, m.held)
	}
	for c, name := range classNames {
		m.units[c], m.calls[c] = units.WithLabelValues(name), calls.WithLabelValues(name)
		m.pipelines[c], m.sizes[c] = seconds.WithLabelValues(name), sizes.WithLabelValues(name)
	}
	return m
}

func (m *Metrics) pipeline(p *pipeline, took time.Duration) {
	m.units[p.class].Add(float64(p.units))
	m.calls[p.class].Add(float64(len(p.calls)))
	m.pipelines[p.class].Observe(took.Seconds())
	m.sizes[p.class].Observe(float64(p.units))
}

func (m *Metrics) failed(f fate, units int) {
	code := "store_internal"
	var e *push.Error
	if errors.As(f.err, &e) {
		code = e.Code
	}
	again := "no"
	if f.again {
		again = "yes"
	}
	m.errors.WithLabelValues(code, again).Add(float64(units))
}
