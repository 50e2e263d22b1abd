//go:build !failpoints

package gateway

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(pool.Closing(m).Run()) }
