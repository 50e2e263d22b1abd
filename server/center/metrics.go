package center

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/push"
)

// metrics are what center counts. Labels are patterns, classes and codes, never anything that a sender chooses.
type metrics struct {
	requests *prometheus.CounterVec // method, route, class of status
	problems *prometheus.CounterVec // code
	messages *prometheus.CounterVec // outcome, code
	publish  prometheus.Histogram   // seconds from the request to its answer

	deliveries                  *prometheus.CounterVec // what the rooms are told
	withBody, withoutBody, none prometheus.Counter     // of deliveries

	running prometheus.Gauge   // tasks
	written prometheus.Counter // users of tasks
}

// outcome says what became of a message that somebody asked to publish.
type outcome string

const (
	outcomeAccepted outcome = "accepted"
	outcomeRepeated outcome = "repeated"
	outcomeRefused  outcome = "refused"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_center_requests_total", Help: "REST requests by operation and class of status.",
		}, []string{"method", "route", "status"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_center_problems_total", Help: "REST requests refused, by code.",
		}, []string{"code"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_center_messages_total", Help: "Messages asked to publish, by outcome and code of refusal.",
		}, []string{"outcome", "code"}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "carillon_center_publish_seconds", Help: "Time from a publish request to its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
	}
	m.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_center_deliveries_total", Help: "Messages told to rooms, by what of them: with or without their body, or, for tags that nobody has there, " +
			"nothing of one that is not stored.",
	}, []string{"told"})
	m.withBody, m.withoutBody, m.none = m.deliveries.WithLabelValues("body"), m.deliveries.WithLabelValues("place"), m.deliveries.WithLabelValues("nothing")
	m.running = prometheus.NewGauge(prometheus.GaugeOpts{Name: "carillon_center_tasks_running", Help: "Tasks that this node runs at the moment."})
	m.written = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "carillon_center_task_users_total", Help: "Users whom this node wrote messages of tasks for.",
	})
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.problems, m.messages, m.publish, m.deliveries, m.running, m.written} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("center: register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(method, route string, status int, code string) {
	if route == "" {
		method, route = "other", "none" // a stranger chooses neither label
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status/100)+"xx").Inc()
	if code != "" {
		m.problems.WithLabelValues(code).Inc()
	}
}

func (m *metrics) message(o outcome, code Code) {
	m.messages.WithLabelValues(string(o), string(code)).Inc()
}

// delivered counts what a room is told of a message.
func (m *metrics) delivered(d *push.Delivery) {
	switch {
	case d.IsBare():
		m.withoutBody.Inc()
	case d.Message != nil:
		m.withBody.Inc()
	}
}

// spared counts rooms that are told nothing of a message.
func (m *metrics) spared(rooms int) { m.none.Add(float64(rooms)) }

func (m *metrics) published(took time.Duration) { m.publish.Observe(took.Seconds()) }

// tasks counts tasks that are run here.
func (m *metrics) tasks(n int) { m.running.Add(float64(n)) }

// taskUsers counts users whom a task's message was written for.
func (m *metrics) taskUsers(n int64) { m.written.Add(float64(n)) }
