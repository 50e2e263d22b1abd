package gateway

import (
	"log"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/embedded"
	"carillon/server/transport/ws"
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

// transportMetrics are the figures of the WebSockets.
func transportMetrics(t *ws.Transport) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "ws", Name: "writes_total",
		Help: "Writes to WebSockets, made or tried. Fewer than the frames that were sent: what waits for a client leaves together."},
		func() float64 { return float64(t.Writes()) })
}

// quietLog takes what net/http has to say about clients that misbehave.
func quietLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
