package memory_test

import (
	"testing"

	"carillon/server/clock/clocktest"
	"carillon/server/idgenerator"
	"carillon/server/idgenerator/idgeneratortest"
	"carillon/server/idgenerator/memory"
)

func TestConformance(t *testing.T) {
	idgeneratortest.Run(t, func(t *testing.T) *idgeneratortest.Subject {
		c := clocktest.New()
		b := memory.New(memory.Config{Clock: c})
		s := &idgeneratortest.Subject{Blocks: b, Clock: c}
		s.Crash = func(*testing.T) idgenerator.Blocks {
			b.Mark()() // a new lineage on the same data: this store has no disk, and loses nothing to forget
			return b
		}
		s.Mark = func(*testing.T) func(*testing.T) idgenerator.Blocks {
			fallBack := b.Mark()
			return func(*testing.T) idgenerator.Blocks {
				fallBack()
				return b
			}
		}
		return s
	})
}
