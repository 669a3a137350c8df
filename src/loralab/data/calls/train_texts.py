"""Message texts, song titles and artists of the train split; see `train_values` for the other kinds."""

TRAIN_TEXTS: dict[str, str] = {
    "message": """
        the train is delayed; dinner is ready; the keys are under the mat; I am running late; the meeting
        moved upstairs; we landed safely; the package arrived this morning; I left the door open; the car
        is parked outside; my phone is almost dead; we are out of milk; the plumber is here; I found your
        scarf; the concert was amazing; your order is ready; I will bring dessert; the baby is asleep; the
        printer works again; we won the game; my flight got cancelled; the tickets are sold out; I passed
        the exam; the dog needs a walk; the report is finished; our table is booked; it is snowing here;
        the wifi password changed; I forgot my umbrella; the bus just left; the kids are already home; the
        cake turned out great; I like the new design; the shop closes early; we need more chairs; your
        mother called twice; the power is back; I signed the papers; the view is beautiful; the doctor can
        see us now; the paint is still wet; the gate code has four digits; my luggage went missing; our
        rent goes up in spring; the band cancelled tonight; she got the job; he broke his ankle; they
        adopted a kitten; nobody opened the shop; the landlord wants a word; I overslept; your parcel is at
        reception; the tide is coming in; we ran out of petrol; the oven has cooled down; my laptop crashed
        again; the choir sounds fantastic; grandpa turned ninety; the twins have chickenpox; the roof is
        leaking; I quit smoking; the exhibition opens soon; your glasses are on the piano; we miss you
        already; the tailor finished the suit; I broke the blue vase; the washing is dry; rehearsal starts
        without us; the mayor is visiting; our tent got soaked; the map was wrong; I will be there shortly;
        the visa was approved; my cousin had a girl; the fridge makes odd noises; tea is on the table; the
        pool is heated; we lost the remote; the hamster escaped; I cannot open the attachment; the deadline
        was extended; both elevators are out; the vet has good news; somebody left the lights on; our team
        came second; the soup needs more salt; I am proud of everyone; the bakery sold the last loaf; the
        hikers are back; my boss said yes; the trail is muddy; he never got the letter; she plays in the
        final; the stream froze overnight; we booked the cheaper cabin; your bike has a flat; the sunset is
        unreal; the auction ended early; I can hear thunder; the piano is out of tune; they want a refund;
        the spare tyre is gone; my talk went well; the bees are swarming; the budget was rejected; our
        guide speaks Welsh; the museum is free today; I am at the wrong station; the curtains finally fit;
        lunch was a disaster; the chapter still needs an ending""",
    "song": """
        Silver Lanterns; Midnight Ferry; Paper Boats; Golden Hour Drive; Echo Valley; Broken Compass;
        Summer Static; Northern Rain; Glass Garden; Velvet Sunday; Hollow Moon; Distant Thunder; Crimson
        Sail; Wildflower Road; Slow Burn; Falling Upward; Neon Rivers; Winter Postcard; Gravity Waltz; Lost
        Signal; Ocean Avenue Blues; Candle Smoke; Runaway Sky; Dust and Diamonds; Quiet Machine; Lighthouse
        Keeper; Borrowed Time; Desert Bloom; Blue Umbrella; Saturday Ghost; Copper Wings; Homeward; Little
        Earthquake; Marble Halls; Shadow Parade; Tangerine Dream Girl; Umbra; Carousel; Sugar Rush; Cold
        Harbour; Stone Age Boogie; Brackish Water; Silk Buttons; Walnut Puzzle; Tinfoil Crown; Pewter Sea;
        Quicksilver; Obsidian; Saffron Nights; Ultramarine; Magnolia Motel; Bicycle Thief; Cathedral Bells;
        Dandelion Clock; Elevator Music; Fever Chart; Ghostwriter; Heliotrope; Icarus Again; Jukebox Tears;
        Kaleidoscope; Lemonade Stand; Moth and Flame; Nine Lives Left; Overcoat; Parachute Season;
        Quarantine Tango; Railway Station Rag; Seventeen Swans; Topaz; Under the Viaduct; Vertigo Lane;
        Wishbone; Xanadu Revisited; Yesterday's Paper; Zero Gravity Love; Ashes of August; Bonfire Heart;
        Coastline; Driftwood Hymn; Evergreen Motel; Foxglove; Gasoline Rainbow; Hurricane Season; Inkwell;
        Jigsaw; Kingfisher; Long Way Down; Mercury Falling; No Return Ticket; Only the Brave Sleep;
        Porcelain; Queen of Nothing; Rearview; Sleepwalker's Map; Thin Ice; Upside of Down; Vinegar and
        Honey; Wolves at Noon; Yellow Door; Avalanche Girl; Backseat Philosopher; Chandelier; Doves Over
        Dover; Every Other Tuesday; Firefly Jar; Half a Crown; Rope Ladder; Sawdust; Twelve Bar Sorrow;
        Waterwheel; Postage Due""",
    "artist": """
        Copper Meadow; Luna Parade; Nightjar; Stone Cartel; Velvet Foxes; Harbor Lights Trio; Mira Solano;
        Electric Plum; Dusty Pilots; Ivory Choir; Polar Kin; Jade Mercer; Sunday Robots; Fable Street; Iron
        Willow; Cass Holloway; Pink Turbine; Orchid Club; Wolf Theory; Delta Bloom; Mono Lake; Tessa Grand;
        Holy Socks; Canyon Radio; Theo Marsh; Bright Arcade; Salt Sisters; Kite District; Hazel Quartet;
        Lazy Comets; Rook; Vanta Pop; Ezra Finch; Tidal Mint; Plastic Crown; Ada Nightingale; Odd Socks
        Orchestra; Magnet Youth; Pepper Kings; Zephyr; Badger and Sons; Bela Tarnow; Birch Assembly;
        Bluebottle; Caspian Row; Chalk Giants; Cornelius Vane; Crooked Spires; Daphne Okoro; Deep Sea
        Mailmen; Digital Hermits; Dolores Quay; Elm Street Brass; Emmeline Fox; False Cadence; Fern Gully
        Six; Figment; Flint Avenue; Ginger Tomcats; Grand Hotel Riot; Gus Applewhite; Half Past Never;
        Hannelore Beck; Honest Thieves; Ida Montrose; Jonquil; Jupiter Laundry; Kestrel; Kilowatt Kids;
        Lacquer; Leopold Quince; Lunar Dentists; Magda Orlov; Midland Ghosts; Milk Teeth Mafia; Mister
        Tangent; Mother Superior Jazz; Neptune Taxi; Night Bakers; Old Ferrymen; Otis Blackwood; Oxbow;
        Paper Generals; Penny Farthing Five; Pilgrim Sound; Porcupine Tango; Quartz Hill; Ragged Sultans;
        Rhubarb Union; River Cormack; Rosalind Teague; Sable Hearts; Seven Oaks Ensemble; Silas Thorn;
        Slate Garden; Solar Grannies; Sparrowhawk; Stella Vantongeren; Tape Deck Saints; Teal;
        The-O-Matics; Three Legged Race; Turquoise Army; Ursa Minor Keys; Velour; Viola Strand; Wax Museum
        Band; Whistling Kettles; Wyatt Sommer; Yarrow; Young Cartographers; Zinnia""",
}
"""Slot kind to values separated by semicolons."""
