package redistest_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"carillon/server/redistest"
)

type run func() int

func (r run) Run() int { return r() }

// Such a client tries to dial once a second and notices its Close then; goleak alone gives up on it sooner.
func TestPool_AClosedClientThatCouldNotDialIsNoLeak(t *testing.T) {
	others := goleak.IgnoreCurrent()
	var pool redistest.Pool
	tests := pool.Closing(run(func() int {
		dials := make(chan struct{}, 16)
		client := redis.NewClient(&redis.Options{PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				dials <- struct{}{}
				return nil, errors.New("nobody listens")
			}})
		if err := client.Ping(t.Context()).Err(); err == nil {
			t.Error("a ping was answered")
		}
		<-dials
		<-dials // that of the goroutine that goes on trying
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		return 7
	}))
	if code := tests.Run(); code != 7 {
		t.Errorf("exit code is %d", code)
	}
	if err := goleak.Find(others); err != nil {
		t.Error(err)
	}
}
