package ws

import "testing"

// driver is a way to drive connections; every rule of RFC 6455 has to hold on each of them.
type driver struct {
	name string
	cfg  Config
}

func allEngines() []driver {
	return []driver{
		{"default", Config{}}, // epoll where there is one
		{"goroutine", Config{Engine: EngineGoroutine}},
	}
}

// engines runs f on every engine. What f starts with a Config, it starts with the one it is given, completed.
func engines(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, e := range allEngines() {
		t.Run(e.name, func(t *testing.T) { f(t, e.cfg) })
	}
}
