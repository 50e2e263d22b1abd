package gateway

import (
	"log"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/certificate"
	"carillon/server/embedded"
	"carillon/server/transport/longpoll"
)

// storeMetrics are the figures of the embedded store, read when they are asked for.
func storeMetrics(db *embedded.DB) []prometheus.Collector {
	figure := func(name, help string, value func(embedded.Metrics) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "store", Name: name, Help: help},
			func() float64 { return value(db.Metrics()) })
	}
	return []prometheus.Collector{
		figure("disk_bytes", "All files of the store.", func(m embedded.Metrics) float64 { return float64(m.DiskBytes) }),
		figure("log_bytes", "Log whose contents are in no table yet.", func(m embedded.Metrics) float64 { return float64(m.LogBytes) }),
		figure("syncs", "Flushes to the disk since the start.", func(m embedded.Metrics) float64 { return float64(m.Syncs) }),
		figure("level0_layers", "Layers of level 0; above ten, compaction does not keep up.",
			func(m embedded.Metrics) float64 { return float64(m.Level0Layers) }),
		figure("compaction_debt_bytes", "Bytes waiting to be compacted.",
			func(m embedded.Metrics) float64 { return float64(m.CompactionDebt) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "store", Name: "healthy",
			Help: "1 while the store accepts writes."}, func() float64 {
			if db.Health() != nil {
				return 0
			}
			return 1
		}),
	}
}

// writesMetric is the figure of what a transport writes.
func writesMetric(transport, what string, writes func() int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "carillon", Subsystem: transport, Name: "writes_total",
		Help: "Writes to " + what + ", made or tried. Fewer than the frames that were sent: what waits for a client leaves together."},
		func() float64 { return float64(writes()) })
}

// pollMetrics are the figures of long-polls.
func pollMetrics(t *longpoll.Transport, l *longpoll.Listener) []prometheus.Collector {
	count := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "poll", Name: name, Help: help},
			func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		writesMetric("poll", "polls", t.Writes),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "poll", Name: "parked",
			Help: "Polls that wait without a goroutine. Others wait in their handlers."}, func() float64 { return float64(t.Waiting()) }),
		count("returned_total", "Connections that went on serving requests after a parked poll was answered.", l.Returned),
		count("turned_away_total", "Connections that were closed instead: the node stops, or too many came back at once.", l.TurnedAway),
	}
}

// quietLog takes what net/http has to say about clients that misbehave.
func quietLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// metrics are the figures of connections that carry no session.
func (e *edge) metrics() []prometheus.Collector {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "admission", Name: "connections",
		Help: "Open connections of clients and product servers that carry no session: handshakes, requests, and those kept for the next one."},
		func() float64 { return float64(e.door.Open()) })
	return append(e.certificateMetrics(), open)
}

// certificateMetrics are the figures of certificates: when they run out, how often they were renewed, and whether the files hold
// what is in use. A node without TLS has none.
func (e *edge) certificateMetrics() []prometheus.Collector {
	if e.certs == nil {
		return nil
	}
	count := func(result string, value func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "tls", Name: "renewals_total",
			Help:        "Certificates that were found in the files anew: taken up, or refused because they are not good.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		count("renewed", func() int64 { n, _ := e.certs.Renewals(); return n }),
		count("failed", func() int64 { _, n := e.certs.Renewals(); return n }),
		certificates{e.certs},
	}
}

// certificates are the figures of each certificate.
type certificates struct{ store *certificate.Store }

var (
	certificateEnds = prometheus.NewDesc("carillon_tls_not_after_seconds", "When the certificate in use runs out, in Unix time.",
		[]string{"cert"}, nil)
	certificateFresh = prometheus.NewDesc("carillon_tls_fresh", "1 while the files hold the certificate in use, 0 while they hold one that is not good.",
		[]string{"cert"}, nil)
)

// Describe implements prometheus.Collector.
func (c certificates) Describe(ch chan<- *prometheus.Desc) {
	ch <- certificateEnds
	ch <- certificateFresh
}

// Collect implements prometheus.Collector.
func (c certificates) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.store.Status() {
		fresh := 1.0
		if s.Err != nil {
			fresh = 0
		}
		ch <- prometheus.MustNewConstMetric(certificateEnds, prometheus.GaugeValue, float64(s.NotAfter.Unix()), s.Pair.Cert)
		ch <- prometheus.MustNewConstMetric(certificateFresh, prometheus.GaugeValue, fresh, s.Pair.Cert)
	}
}
