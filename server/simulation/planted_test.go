//go:build planted && !race

package simulation

import (
	"slices"
	"strings"
	"testing"

	"carillon/server/planted"
)

// plantedSeeds says how many seeds a planted bug may stay hidden for.
const plantedSeeds = 300

// found says, for each planted bug, which rules it breaks; the first that a seed shows ends the search.
var found = map[planted.Bug]struct {
	pebble bool // it is in the embedded store alone
	memory bool // it takes a store that falls back
	rules  []string
}{
	planted.AcknowledgeBeforeStore:     {pebble: true, rules: []string{"lost", "idempotency"}},
	planted.CursorByMessageID:          {memory: true, rules: []string{"lost"}},
	planted.RepeatsByPosition:          {memory: true, rules: []string{"lost"}},
	planted.PositionsFromOne:           {memory: true, rules: []string{"position"}},
	planted.AcknowledgementsAsTheyCome: {memory: true, rules: []string{"lost"}},
	planted.TailOverLineage:            {memory: true, rules: []string{"lost"}},
	planted.RegisterDelete:             {rules: []string{"lost"}},
	planted.NoSweep:                    {rules: []string{"lost"}},
	planted.RemovalOnPush:              {rules: []string{"lost", "isolation"}},
	planted.IDsBeforeBound:             {pebble: true, rules: []string{"ids"}},
	planted.KickInRegisterOnly:         {rules: []string{"session", "kick"}},
	planted.PlacesByRoom:               {rules: []string{"world"}},
	planted.KeyWithoutProduct:          {rules: []string{"ids", "idempotency", "lost"}},
	planted.BlockingSend:               {rules: []string{"live"}},
	planted.FlushErrorIgnored:          {pebble: true, rules: []string{"lost"}},
	planted.AnswerAcknowledges:         {rules: []string{"lost", "isolation"}},
	planted.KickUnheard:                {rules: []string{"kick"}},
	planted.ContinuedIsReplaced:        {rules: []string{"world"}},
	planted.MoveFromHead:               {rules: []string{"lost"}},
	planted.TailOverGap:                {rules: []string{"lost"}},
	planted.LeaseForgotten:             {rules: []string{"lost"}},
	planted.OpenBeforeFlush:            {pebble: true, rules: []string{"reset", "order"}},
	planted.TokenIDIgnored:             {rules: []string{"world"}},
	planted.TokenIDUnheard:             {rules: []string{"kick"}},
	planted.TagsUnheard:                {rules: []string{"world"}},
	planted.JoinedForSet:               {rules: []string{"tags"}},
	planted.TagsNotRead:                {rules: []string{"phantom"}},
	planted.CollapseOverFilters:        {rules: []string{"lost"}},
	planted.TagsUntold:                 {rules: []string{"lost"}},
	planted.DeviceForgotten:            {memory: true, rules: []string{"world"}},
	planted.BatchWithoutFence:          {rules: []string{"world"}},
	planted.BatchUnmarked:              {rules: []string{"world"}},
	planted.TaskCheckpointFirst:        {rules: []string{"world", "lost"}},
	planted.TaskTokenKept:              {rules: []string{"world"}},
}

func TestPlanted_EachBugIsFound(t *testing.T) {
	for _, bug := range slices.Concat(planted.All(), planted.OfTasks(), planted.OfRunners()) {
		if slices.Contains(planted.OnRedis(), bug) {
			continue
		}
		t.Run(string(bug), func(t *testing.T) {
			c, ok := found[bug]
			if !ok {
				t.Fatal("the bug has no case")
			}
			if err := planted.Choose(bug); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = planted.Choose(planted.None) }()
			lived := 0
			for seed := uint64(1); lived < plantedSeeds; seed++ {
				if c.pebble && !onEmbedded(seed) || c.memory && onEmbedded(seed) {
					continue
				}
				lived++
				for _, v := range simulate(t, seed, nil).Violations {
					for _, rule := range c.rules {
						if strings.HasPrefix(v.Rule, rule) {
							t.Logf("found after %d seeds, by seed %d: %v", lived, seed, v)
							return
						}
					}
				}
			}
			t.Errorf("not found in %d seeds", lived)
		})
	}
}

func TestPlanted_WithoutABugTheSameSeedsAreClean(t *testing.T) {
	if err := planted.Choose(planted.None); err != nil {
		t.Fatal(err)
	}
	for seed := uint64(1); seed <= 100; seed++ {
		for _, v := range simulate(t, seed, nil).Violations {
			t.Errorf("seed %d: %v", seed, v)
		}
	}
}
